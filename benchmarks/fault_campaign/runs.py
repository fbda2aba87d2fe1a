"""A training command as forked processes: started, watched, signalled, and what it left."""

import ctypes
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.distributed.elastic.utils.distributed import get_free_port

from lavis_evlgen import launch

PATIENCE = 300.0  # seconds after which a run hangs
POLL = 0.002
PR_SET_PDEATHSIG = 1
USER_ERROR = 2  # the launcher's exit code for what a user can mend


class Failed(Exception):
    """A run did not come back as it should."""


class Missed(Exception):
    """The fault did not strike: the run was over, or the file written, before."""


class Run:
    """One command: its configuration ``folder/run.yaml``, its output ``folder/out``, its messages ``folder/log.RANK``.

    Processes are forked from this one, which has imported everything and has one thread: an import of LAVIS takes
    longer than the run.
    """

    def __init__(self, folder: Path, config: dict[str, Any], processes: int = 1) -> None:
        self.folder, self.out, self.processes = folder, folder / "out", processes
        self.config = {**config, "run": {**config["run"], "output_dir": str(self.out)}}
        self.steps_wanted: int = config["run"]["max_iters"]
        self.pids: list[int] = []
        self._codes: dict[int, int] = {}

    def start(self, largest_file: int = 0) -> None:
        """``largest_file``: bytes at which the system refuses to write on (RLIMIT_FSIZE); 0: none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(self.config), self.folder / "run.yaml")
        port = get_free_port() if self.processes > 1 else 0
        self._codes.clear()
        self.pids = [self._fork(rank, port, largest_file) for rank in range(self.processes)]

    def _fork(self, rank: int, port: int, largest_file: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            log = os.open(self.folder / f"log.{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if self.processes > 1:
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.processes, "MASTER_PORT": port}
                os.environ.update({key: str(value) for key, value in place.items()}, MASTER_ADDR="127.0.0.1")
            if largest_file:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
            code = launch.main(["--cfg-path", str(self.folder / "run.yaml")])
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> list[int | None]:
        """Exit codes by rank, negative for signals; None while it runs."""
        for pid in self.pids:
            if pid not in self._codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    self._codes[pid] = os.waitstatus_to_exitcode(status)
        return [self._codes.get(pid) for pid in self.pids]

    def wait(self, seconds: float = PATIENCE, ranks: list[int] | None = None) -> list[int | None]:
        """Wait for all (or the given) ranks; exit codes of all. Raises Failed, and kills them, when they hang."""
        end = time.monotonic() + seconds
        wanted = range(self.processes) if ranks is None else ranks
        while any(self.poll()[rank] is None for rank in wanted):
            if time.monotonic() > end:
                self.kill()
                raise Failed(f"rank {list(wanted)} still ran after {seconds:g} s: {self.last_words()}")
            time.sleep(POLL)
        return self.poll()

    def finish(self) -> list[int | None]:
        """Start and wait."""
        self.start()
        return self.wait()

    def signal(self, number: int, rank: int = 0) -> None:
        """Raises Missed when the rank has ended."""
        if self.poll()[rank] is not None:
            raise Missed(f"rank {rank} had ended")
        os.kill(self.pids[rank], number)

    def kill(self) -> None:
        """End whatever still runs."""
        for pid, code in zip(self.pids, self.poll(), strict=True):
            if code is None:
                os.kill(pid, signal.SIGKILL)
                self._codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def wait_until(self, reached: Callable[[], Any]) -> Any:
        """Wait for a true answer, and give it; Missed when the run ends before."""
        while not (answer := reached()):
            if any(code is not None for code in self.poll()):
                raise Missed("the run ended before")
            time.sleep(POLL)
        return answer

    def steps(self) -> int:
        """Steps that the log holds."""
        path = self.out / "log.jsonl"
        return path.read_bytes().count(b'"lr": ') if path.is_file() else 0

    def unfinished(self) -> list[Path]:
        return list(self.out.glob("*.unfinished"))

    def said(self) -> str:
        """All messages of all ranks."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("log.*")))

    def last_words(self) -> str:
        return " | ".join(self.said().splitlines()[-3:])[-600:]

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "log.jsonl").read_text().splitlines()]

    def seen(self) -> dict[int, list[str]]:
        """The ids of each step, as the task of the data kinds notes them; a step done again counts once."""
        lines = (self.out / "seen.jsonl").read_text().splitlines()
        return {row["step"]: row["ids"] for row in map(json.loads, lines)}

    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.out / "model.pth", weights_only=True)["model"]

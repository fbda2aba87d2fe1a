"""What a run reports: a progress bar or log lines, JSON lines, and TensorBoard."""

import datetime
import json
import logging
import math
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm

from lavis_evlgen.datasets.whole_files import write_text, writes_explained
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.json_text import parse_json

LOG_FILE = "log.jsonl"


def _finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunLog:
    """``log.jsonl`` of a run folder: one JSON object a line, each with ``iters``; TensorBoard gets the same numbers.

    What the system refuses to write, as on a full disk, is an EvlgenError.
    """

    def __init__(self, folder: Path, enabled: bool = True, tensorboard: bool = False) -> None:
        """``enabled`` is False on all ranks but the first: they write nothing."""
        self.path = folder / LOG_FILE
        self.enabled = enabled
        self._writer = _summary_writer() if enabled and tensorboard else None
        self._board: Any = None  # opened by the first number, or by rewind

    def write(self, record: dict[str, Any], split: str = "train") -> None:
        self._append(record)
        if self._writer is not None:
            with writes_explained(self.path.parent):
                self._board = self._board or self._writer(str(self.path.parent))
                for key, value in record.items():
                    if isinstance(value, int | float) and key != "iters":
                        self._board.add_scalar(f"{split}/{key}", value, record["iters"])

    def note(self, iters: int, **facts: Any) -> None:
        """Write an event, with the time of day in Unix seconds; measurements alone go to TensorBoard."""
        self._append({"iters": iters, **facts, "time": round(time.time(), 1)})

    def read(self) -> list[dict[str, Any]]:
        """All records; damaged lines, such as the last one that a killed run left unfinished, are dropped."""
        records = []
        if self.path.is_file():
            for number, line in enumerate(self.path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
                try:
                    record = parse_json(line) if line.strip() else None
                except ValueError:
                    record = {}
                if isinstance(record, dict) and type(record.get("iters")) is int:
                    records.append(record)
                elif record is not None:
                    logging.warning("dropped line %d of %s: it is unfinished or damaged", number, self.path)
        return records

    def rewind(self, iters: int) -> list[dict[str, Any]]:
        """Forget what was logged after ``iters``: a resumed run writes it again. The records that are left."""
        if not (self.enabled and self.path.is_file()):
            return []
        kept = [record for record in self.read() if record.get("iters", 0) <= iters]
        with writes_explained(self.path.parent):
            write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
            if self._writer is not None:
                # TensorBoard cannot delete; it shows nothing from this step on that an earlier process wrote
                self.close()
                self._board = self._writer(str(self.path.parent), purge_step=iters + 1)
        return kept

    def _append(self, record: dict[str, Any]) -> None:
        if not self.enabled:
            return
        line = json.dumps({key: _finite(value) for key, value in record.items()}, default=str) + "\n"
        with writes_explained(self.path.parent), open(self.path, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # the last line of a process that was killed
                    line = "\n" + line
            file.write(line.encode())

    def has_evaluation(self, iters: int, split: str) -> bool:
        return any(record.get("split") == split and record.get("iters") == iters for record in self.read())

    def close(self) -> None:
        board, self._board = self._board, None
        if board is not None:
            try:
                board.close()
            except OSError as error:  # the numbers are in log.jsonl, and why the run ends is more important
                logging.warning("TensorBoard's file in %s is not complete: %s", self.path.parent, error)


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("run.tensorboard: True needs `pip install tensorboard`") from error
    return SummaryWriter


class Progress:
    """Bar over the steps with loss, learning rate, images/s and time left; log lines where there is no terminal."""

    def __init__(self, total: int, start: int, log_freq: int, enabled: bool = True) -> None:
        self.total, self.log_freq, self.enabled = total, log_freq, enabled
        self._bar = tqdm(
            total=total, initial=start, desc="train", unit="step", disable=not (enabled and sys.stderr.isatty())
        )
        self._begin = time.perf_counter()
        self._first = start
        self._reset_window()

    def _reset_window(self) -> None:
        self._seconds, self._samples, self._waited = 1e-9, 0, 0.0

    def update(
        self, iters: int, loss: float, lr: float, samples: int, seconds: float, waited: float
    ) -> dict[str, float] | None:
        """Count one step; at every ``log_freq``-th (and the last) the speed since the previous report, else None.

        ``samples``: pictures of the step over all ranks; ``seconds``: its duration; ``waited``: seconds of it that
        this rank waited for data.
        """
        self._samples += samples
        self._seconds += seconds
        self._waited += waited
        self._bar.update()
        self._bar.set_postfix_str(f"loss {loss:.4f}, lr {lr:.2e}", refresh=False)
        if iters % self.log_freq and iters != self.total:
            return None
        speed = {
            "images_per_s": round(self._samples / self._seconds, 2),
            "data_wait": round(self._waited / self._seconds, 3),
            "seconds": round(self._seconds, 6),
        }
        self._bar.set_postfix_str(f"loss {loss:.4f}, lr {lr:.2e}, {speed['images_per_s']} images/s", refresh=False)
        if self.enabled and self._bar.disable:
            per_step = (time.perf_counter() - self._begin) / max(1, iters - self._first)
            left = datetime.timedelta(seconds=int(per_step * (self.total - iters)))
            logging.info(
                "step %d/%d  loss %.4f  lr %.2e  %.1f images/s  left %s",
                iters, self.total, loss, lr, speed["images_per_s"], left,
            )  # fmt: skip
        self._reset_window()
        return speed

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()

"""`evlgen watch` as it is called: one frame, JSON, and live in a terminal until Ctrl-C."""

import io
import json
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from run_folder import started, steps, write_run

from lavis_evlgen import cli
from lavis_evlgen.watch.command import Runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with everything in its log, its last record and its checkpoint just written."""
    now = time.time()
    records = [
        started(time=now - 100),
        *steps(10, 20, images_per_s=12.5, tokens_per_s=480.0, data_wait=0.35, host_memory_gib=1.5, grad_norm=0.7),
        {"iters": 20, "held_out_loss": 1.5, "shuffled_loss": 1.51, "gap": 0.01, "prompt_diversity": 0.3},
        {"iters": 20, "state": "evaluating", "what": "val"},
        {"iters": 20, "split": "val", "CIDEr": 0.75, "agg_metrics": 1.125, "captions": 40, "note": "text"},
        {"iters": 20, "warning": "the model writes its captions without looking"},
        *steps(30, loss=0.5, nan_steps=2, bad_samples=1),
    ]
    path = write_run(tmp_path / "one", *records, valid_splits=["val"])
    (path / "checkpoint_20.pth").write_bytes(b"")
    for name in ("log.jsonl", "checkpoint_20.pth"):
        os.utime(path / name, (now, now))
    return path


@pytest.fixture
def drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A frame as a terminal of some size shows it, without colours, when the run has just written its last record."""
    now, here = (folder / "log.jsonl").stat().st_mtime, folder.parent.parent
    monkeypatch.chdir(here)  # the path of the temporary folder may be longer than a line

    def draw(shown: Path, width: int = 100, height: int = 40, encoding: str = "utf-8") -> str:
        bytes_ = io.BytesIO()
        file = io.TextIOWrapper(bytes_, encoding=encoding, errors="replace")
        console = Console(file=file, width=width, height=height, force_terminal=True, highlight=False, markup=False)
        runs = Runs(shown.relative_to(here))
        console.print(runs.screen(runs.frames(now), console))
        file.flush()
        return re.sub(r"\x1b\[[0-9;]*m", "", bytes_.getvalue().decode(encoding))

    return draw


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_one_run_in_full(folder, drawn):
    text = drawn(folder)
    assert re.search(r"/one +running$", text, re.M) and "step 30 of 100, 30 %" in text
    assert re.search(r"^loss +0\.5000 █.*▁ +learning rate +1\.00e-04", text, re.M)
    assert re.search(r"gap +0\.010 ", text) and re.search(r"prompt diversity +0\.3000", text)
    assert re.search(r"tokens/s +480\.0", text) and re.search(r"waiting for data +35\.0 %", text)
    assert re.search(r"^val +step 20: agg_metrics 1\.125, CIDEr 0\.7500, captions 40 *$", text, re.M)
    assert re.search(r"^best +step 20: agg_metrics 1\.125 on val *$", text, re.M)
    assert "checkpoint_20.pth, 0 s old" in text
    assert "2 steps skipped (not finite), 1 bad samples" in lines(text, "trouble")[0]
    assert " 1 warnings " in text and "20  the model writes its captions without looking" in text
    assert re.search(r"^ +10 +━━ training   ━━ held-out   ━━ shuffled +30$", text, re.M)
    assert len(lines(text, " ")) == 13, "twelve lines of chart, and its legend"


def test_the_chart_gives_way_in_low_and_narrow_terminals(folder, drawn):
    for width, height, charted in ((100, 40, 12), (100, 24, 8), (60, 24, 7), (100, 19, 0)):
        text = drawn(folder, width, height)
        assert len(text.splitlines()) <= height and max(map(len, text.splitlines())) <= width
        assert (text.count("│"), "━━ training" in text) == (charted, charted > 0)


def test_terminals_that_know_letters_only(folder, drawn):
    text = drawn(folder, encoding="ascii")
    assert re.search(r"^loss +0\.5000 #+.*_", text, re.M) and "-- training" in text and "*" in text


def test_several_runs_are_a_table(folder, drawn):
    write_run(folder.parent / "two" / "seed1", *steps(10), {"iters": 10, "state": "paused"}, max_iters=10)
    text = drawn(folder.parent)
    assert text.splitlines()[0].endswith(": 2 runs, 1 running, 1 paused")
    assert re.search(r"^ one +running +30/100 +0\.5000 +1\.500 +0\.010 +1\.125 +\d+ min +1 *$", text, re.M)
    assert re.search(r"^ two/seed1 +paused +10/10 +2\.000 +– +– +– +– +0 *$", text, re.M)
    many = folder.parent / "many"
    for number in range(30):
        write_run(many / f"run{number:02}", *steps(10), max_iters=10)
    text = drawn(many, height=20)
    assert len(text.splitlines()) <= 20 and text.splitlines()[-1] == "and 16 more"


def test_one_frame_and_its_exit_code(folder, capsys):
    assert cli.main(["watch", str(folder), "--once"]) == 0
    assert "step 30 of 100" in capsys.readouterr().out
    assert cli.main(["watch", str(folder)]) == 0, "no terminal: one frame"
    os.utime(folder / "log.jsonl", (1.0, 1.0))
    assert cli.main(["watch", str(folder), "--once"]) == 1
    assert "silent for" in capsys.readouterr().out
    assert cli.main(["watch", f"{folder}x", "--once"]) == 2
    assert "onex does not exist; did you mean" in capsys.readouterr().err
    assert cli.main(["watch", str(folder), "--every", "0"]) == 2
    write_run(folder.parent / "two" / "[dim]", *steps(10))
    assert cli.main(["watch", str(folder.parent), "--once"]) == 1
    assert re.search(r"^ two/\[dim\] ", capsys.readouterr().out, re.M), "a name, no style"


def test_json(folder, capsys):
    assert cli.main(["watch", str(folder), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["status"], run["step"], run["max_iters"], run["nan_steps"]) == ("running", 30, 100, 2)
    assert run["figures"]["gap"] == 0.01 and run["figures"]["loss"] == 0.5
    assert run["warnings"] == [{"iters": 20, "text": "the model writes its captions without looking"}]
    assert (
        run["best"] == {"split": "val", "agg_metrics": 1.125, "iters": 20}
        and run["evaluations"]["val"]["CIDEr"] == 0.75
    )


def read_until(terminal: int, *texts: str, seconds: float = 300.0) -> None:
    """Read what the terminal shows until the texts stood in it one after the other."""
    shown, end = "", time.monotonic() + seconds
    pattern = ".*".join(map(re.escape, texts))
    while not re.search(pattern, shown, re.DOTALL):
        assert time.monotonic() < end, shown[-2000:]
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 1 << 16).decode(errors="replace")


def watch_in_terminal(folder: Path) -> None:
    """What the forked process does: pytest had put other streams in the terminal's place."""
    code = 70
    try:
        os.environ.update(COLUMNS="150", LINES="40", TERM="xterm")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for what runs in the background
        sys.stdout = open(1, "w")  # noqa: SIM115
        code = cli.main(["watch", str(folder), "--every", "0.05"])
        sys.stdout.flush()
    finally:
        os._exit(code)


def test_live_it_waits_for_a_run_follows_it_and_ends_with_ctrl_c(folder, tmp_path):
    later = tmp_path / "later"
    pid, terminal = pty.fork()
    if pid == 0:
        watch_in_terminal(later)
    try:
        read_until(terminal, "not there yet")
        folder.rename(later)
        read_until(terminal, "step 30 of 100")
        with open(later / "log.jsonl", "a") as log:
            log.write(json.dumps(steps(31)[0]) + "\n")
        read_until(terminal, "step 31 of 100")
        os.write(terminal, b"\x03")
        read_until(terminal, "\x1b[?1049l", "step 31 of 100")  # the screen from before, and the last frame on it
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(terminal)

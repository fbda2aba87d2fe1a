"""What is said of a run: whether it is alive, how long it takes, what its files are."""

import os
import subprocess
import sys

import pytest
from run_folder import NOW, started, steps, write_run

from lavis_evlgen.errors import DataError
from lavis_evlgen.watch.folders import check_folder, run_folders
from lavis_evlgen.watch.run import Frame, WatchedRun


def seen(folder) -> Frame:
    run = WatchedRun(folder)
    run.refresh()
    return run.frame(NOW)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("records", "age", "status"),
    [
        ([started()], 30, "starting"),
        ([started()], 700, "silent"),
        ([started(), *steps(10, 20)], 59, "running"),
        ([started(), *steps(10, 20)], 61, "silent"),
        ([started(), *steps(10, 20, seconds=100.0)], 499, "running"),
        ([started(), *steps(10, 20, seconds=100.0)], 501, "silent"),
        ([started(), *steps(10), {"iters": 10, "state": "evaluating", "what": "val"}], 1799, "evaluating"),
        ([started(), *steps(10), {"iters": 10, "state": "evaluating", "what": "val"}], 1801, "silent"),
        ([started(), *steps(10), {"iters": 10, "state": "stopped", "why": "told to stop"}], 9999, "stopped"),
        ([started(), *steps(10), {"iters": 10, "state": "paused"}], 9999, "paused"),
        ([started(), *steps(100), {"iters": 100, "state": "finished"}], 9999, "finished"),
        ([started(), {"iters": 9, "state": "finished"}, started()], 5, "starting"),
        (steps(10), 30, "running"),
        (steps(10, 100), 9999, "finished"),
        ([{"iters": 0, "split": "test", "agg_metrics": 1.0}], 9999, "finished"),
    ],
)
def test_status(tmp_path, records, age, status):
    assert seen(write_run(tmp_path, *records, age=age, max_iters=100)).status == status


def test_a_process_that_is_gone_is_told_from_one_elsewhere(tmp_path):
    gone = started(pid=dead_pid())
    frame = seen(write_run(tmp_path / "here", gone, *steps(10), age=11))
    assert (frame.status, frame.why) == ("dead", f"process {gone['pid']} is gone")
    assert seen(write_run(tmp_path / "just now", gone, *steps(10), age=9)).status == "running"
    elsewhere = {**gone, "host": "another"}
    assert seen(write_run(tmp_path / "there", elsewhere, *steps(10), age=11)).status == "running"


def test_no_log_yet(tmp_path):
    frame = seen(tmp_path)
    assert (frame.status, frame.why, frame.age, frame.max_iters, frame.left) == (
        "waiting",
        "no log yet",
        None,
        None,
        None,
    )


def test_time_left_is_that_since_the_start_evaluations_included(tmp_path):
    # 30 of 100 steps in 300 s of training, but 900 s by the clock
    records = [started(ago=905.0), *steps(10, 20, 30, seconds=100.0)]
    assert seen(write_run(tmp_path / "a", *records, age=5)).left == pytest.approx(900 / 30 * 70)
    resumed = [*records, started(iters=30, ago=205.0), *steps(40)]
    assert seen(write_run(tmp_path / "b", *resumed, age=5)).left == pytest.approx(200 / 10 * 60)
    assert seen(write_run(tmp_path / "c", *steps(10, 20, seconds=50.0), max_iters=100)).left == pytest.approx(5 * 80)
    assert seen(write_run(tmp_path / "d", *records, age=5000)).left is None


def test_files_and_configuration(tmp_path):
    scores = [{"iters": 10, "split": name, "agg_metrics": value} for name, value in (("other", 9.0), ("val", 1.0))]
    folder = write_run(tmp_path, *steps(10), *scores, valid_splits=["val", "other"], warmup_steps=7)
    for number, age in ((9, 500), (40, 60), (100, 20)):
        path = folder / f"checkpoint_{number}.pth"
        path.write_bytes(b"")
        os.utime(path, (NOW - age, NOW - age))
    (folder / "checkpoint_best.pth").write_bytes(b"")
    (folder / "checkpoint_200.pth.77.unfinished").write_bytes(b"")
    frame = seen(folder)
    assert frame.checkpoint == {"name": "checkpoint_100.pth", "age": 20.0}
    assert frame.best == {"split": "val", "agg_metrics": 1.0, "iters": 10}
    (folder / "config.yaml").write_text("run: {max_iters: [")
    assert seen(folder).best == {"split": "other", "agg_metrics": 9.0, "iters": 10}


def test_a_run_is_read_on_and_begins_anew_when_its_log_is_rewound(tmp_path):
    run = WatchedRun(write_run(tmp_path, *steps(10, 20, 30)))
    run.refresh()
    assert run.frame(NOW).step == 30
    write_run(tmp_path, *steps(10, 20), {"iters": 20, "warning": "careful"})
    run.refresh()
    frame = run.frame(NOW)
    assert frame.step == 20 and frame.warnings == [{"iters": 20, "text": "careful"}]


def test_runs_below_a_folder(tmp_path):
    for name in ("ours/seed1/stage1", "ours/seed1/stage2", "plain", "a/b/c/d", "too/deep/for/a/look"):
        write_run(tmp_path / name)
    (tmp_path / "plain" / "inner").mkdir()
    write_run(tmp_path / "plain" / "inner")  # below a run nobody looks
    found = [str(path.relative_to(tmp_path)) for path in run_folders(tmp_path)]
    assert found == ["a/b/c/d", "ours/seed1/stage1", "ours/seed1/stage2", "plain"]
    assert run_folders(tmp_path / "plain") == [tmp_path / "plain"]


def test_a_folder_without_runs_is_an_error_with_a_way_out(tmp_path, monkeypatch):
    write_run(tmp_path / "outputs" / "demo_video")
    monkeypatch.chdir(tmp_path)
    path = type(tmp_path)
    check_folder(path("outputs"))
    with pytest.raises(DataError, match=r"^outputs/demo_vide does not exist; did you mean outputs/demo_video\?$"):
        check_folder(path("outputs/demo_vide"))
    with pytest.raises(DataError, match=r"^outputs/xyz/seed1 does not exist; .*/outputs holds demo_video$"):
        check_folder(path("outputs/xyz/seed1"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no run: there is no log.jsonl in it or below"):
        check_folder(tmp_path / "empty")

"""log.jsonl and TensorBoard: whole records, each step once, and a clear error where nothing can be written."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from test_resume import Killed, stop_before
from tiny_runs import losses

from lavis_evlgen.errors import EvlgenError
from lavis_evlgen.runners.not_finite import note_samples
from lavis_evlgen.runners.progress import RunLog
from lavis_evlgen.runners.runner_evlgen import RunnerEvlgen


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond ``size`` bytes, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_run_whose_log_cannot_grow_ends_with_a_clear_error_and_goes_on(config, train, tmp_path):
    options = {"max_iters": 60, "iters_per_inner_epoch": 60}
    train(config("whole", **options))
    argv = config(**options)
    with (
        no_file_above(6000),
        pytest.raises(EvlgenError, match=r"could not write to .*/out: .*File too large.*the same command goes on"),
    ):
        train(argv)
    written = [record["iters"] for record in RunLog(tmp_path / "out").read() if "loss" in record]
    assert written and written == list(range(1, len(written) + 1)) and len(written) < 60
    train(argv)
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")


def test_a_configuration_that_cannot_be_written_is_a_clear_error(config, train, tmp_path, monkeypatch):
    monkeypatch.setattr(RunnerEvlgen, "log_config", no_file_above(10)(RunnerEvlgen.log_config))
    with pytest.raises(EvlgenError, match=r"could not write to .*/out: .*File too large"):
        train(config())
    assert not (tmp_path / "out" / "config.yaml").exists()


def test_ids_of_a_nan_step_that_cannot_be_written_are_a_clear_error(tmp_path):
    with no_file_above(10), pytest.raises(EvlgenError, match="could not write to .*File too large"):
        note_samples(tmp_path, 7, float("nan"), [{"image_id": ["a"]}])


def test_a_record_behind_an_unfinished_line_is_kept(tmp_path):
    """An evaluation of a run that was killed writes to its log without resuming it."""
    (tmp_path / "log.jsonl").write_text('{"iters": 1, "loss": 2.0}\n{"iters": 2, "lo')
    log = RunLog(tmp_path)
    log.write({"iters": 1, "split": "val", "agg_metrics": 0.5}, "val")
    log.write({"iters": 1, "split": "test", "agg_metrics": 0.25}, "test")
    assert [record.get("agg_metrics") for record in log.read()] == [None, 0.5, 0.25]


def test_tensorboard_shows_each_step_of_a_resumed_run_once(config, train, tmp_path, monkeypatch):
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    argv = config(tensorboard=True, valid_splits=["val"])
    with monkeypatch.context() as patch:
        stop_before(patch, 7)
        with pytest.raises(Killed):
            train(argv)
    train(argv)  # from the checkpoint of step 4
    shown = board.EventAccumulator(str(tmp_path / "out")).Reload()
    assert [event.step for event in shown.Scalars("train/loss")] == list(range(1, 13))
    assert [event.value for event in shown.Scalars("train/loss")] == pytest.approx(
        [r[1] for r in losses(tmp_path / "out")]
    )
    assert [event.step for event in shown.Scalars("val/agg_metrics")] == [4, 8, 12]

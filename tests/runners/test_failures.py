"""What stops a run says what it was, keeps what was saved, and leaves in order."""

import json
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tiny_lavis
import torch
from test_resume import losses, same_weights, wait_for
from tiny_runs import rows, trained

from lavis_evlgen.errors import DataError, DivergedError
from lavis_evlgen.runners import interrupt, not_finite
from lavis_evlgen.runners.checkpointing import load
from lavis_evlgen.runners.out_of_memory import OutOfMemory, is_out_of_memory, model_levers, training_levers
from lavis_evlgen.runners.samples import EpochBatches
from lavis_evlgen.runners.settings import RunSettings

CAPTIONS = {"arch": "evlgen_opt", "max_txt_len": 60, "llm_precision": "fp32", "freeze_vit": True}


def not_finite_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / not_finite.FILE).read_text().splitlines()]


def test_samples_of_a_step_that_is_not_finite_are_written_down(config, train, tmp_path):
    train(config(max_iters=3, model={"nan_at": [1]}, accum_grad_iters=2))
    (row,) = not_finite_rows(tmp_path / "out")
    assert (row["iters"], row["rank"], row["loss"]) == (2, 0, "nan")
    # the second step of an epoch has the samples 8 to 15 of its order
    wanted = EpochBatches(40, 4, seed=42).order(0)[8:16].tolist()
    assert row["ids"]["index"] == wanted
    assert row["ids"]["image_id"] == [f"{index % tiny_lavis.CLASSES}-{index}" for index in wanted]


def test_too_many_keep_the_last_checkpoint_and_name_the_file(config, train, tmp_path):
    argv = config(model={"nan_at": [4, 5, 6, 7]}, max_nan_steps=3, save_freq=1)
    with pytest.raises(DivergedError, match=r"3 steps in a row .*out/not_finite.jsonl names the samples"):
        train(argv)
    assert [row["iters"] for row in not_finite_rows(tmp_path / "out")] == [5, 6, 7]
    kept = load(tmp_path / "out" / "checkpoint_6.pth")["model"]  # of step 4, as 5 and 6 were skipped
    assert all(tensor.isfinite().all() for tensor in kept.values())
    with pytest.raises(DivergedError, match="3 steps in a row"):  # two of them were before the checkpoint
        train(argv)
    assert [row["iters"] for row in not_finite_rows(tmp_path / "out")] == [5, 6, 7, 7]


def test_the_rank_that_was_not_finite_is_named(config, run_processes, tmp_path):
    assert run_processes(config(max_iters=3, model={"nan_at": [1], "nan_rank": 1})) == [0, 0]
    (row,) = not_finite_rows(tmp_path / "out")
    assert (row["iters"], row["rank"], len(row["ids"]["index"])) == (2, 1, 4)


def test_a_gradient_alone_that_is_not_finite_names_the_samples_of_all(tmp_path):
    not_finite.note_samples(tmp_path, 7, 0.5, [{"question_id": torch.tensor([3, 4])}, {"image": 1, "question_id": [5]}])
    assert not_finite_rows(tmp_path) == [{"iters": 7, "rank": 0, "loss": 0.5, "ids": {"question_id": [3, 4, 5]}}]


def bad_data(monkeypatch, action, sample: int = 7) -> None:
    """Make reading a sample do something, in whichever process reads it."""
    original = tiny_lavis.TinyData.__getitem__

    def get(self, index):
        if index == sample:
            action()
        return original(self, index)

    monkeypatch.setattr(tiny_lavis.TinyData, "__getitem__", get)


def test_a_killed_data_worker_is_named_with_its_sample(config, train, monkeypatch):
    bad_data(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(
        DataError,
        match=r"datasets.tiny_data: worker \d \(pid \d+\), last reading sample 7, was killed by SIGKILL. .*--shm-size",
    ):
        train(config(num_workers=2))


def test_a_data_worker_that_blocks_is_named_with_its_sample(config, train, monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)  # how long its end is waited for
    bad_data(monkeypatch, lambda: time.sleep(1000))
    with pytest.raises(
        DataError,
        match=r"no batch came within run.data_timeout \(3 s\) from data worker \d \(pid \d+\), last reading sample 7",
    ):
        train(config(num_workers=2, data_timeout=3))


def test_a_killed_worker_of_an_evaluation_is_named(config, train, monkeypatch):
    bad_data(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DataError, match=r"datasets.tiny_data \(val\): worker 0 .*last reading sample 7"):
        train(config(num_workers=1, valid_splits=["val"]), evaluate=True)


def test_out_of_memory_is_one_error_with_what_to_lower(config, train, monkeypatch):
    def greedy(self, samples):
        torch.empty(2**46, dtype=torch.float32)

    monkeypatch.setattr(tiny_lavis.TinyModel, "forward", greedy)
    with pytest.raises(
        OutOfMemory,
        match=r"memory is full \(in step 1, forward pass\): .*run.batch_size_train 4 -> 2 with run.accum_grad_iters 2 "
        r"\(the same step\)",
    ):
        train(config())


def test_out_of_memory_in_evaluation_lowers_other_things(config, train, monkeypatch):
    monkeypatch.setattr(tiny_lavis.TinyModel, "logits", lambda self, samples: np.empty(2**46))
    with pytest.raises(OutOfMemory, match=r"\(evaluating val\): .*first: run.batch_size_eval 5 -> 2 \(the same res"):
        train(config(valid_splits=["val"]), evaluate=True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (OSError(28, "No space left on device"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_levers_are_those_that_the_configuration_has():
    settings = RunSettings(batch_size_train=5, accum_grad_iters=2, device="cuda", world_size=2, distributed=True)
    assert training_levers(settings) == [
        "run.batch_size_train 5 -> 2 with run.accum_grad_iters 6 (a slightly larger step)"
    ]
    levers = model_levers(settings, CAPTIONS)
    assert [lever.split()[0].rstrip(":") for lever in levers] == [
        "run.precision", "model.use_grad_checkpoint", "model.llm_grad_checkpoint", "model.llm_precision",
        "model.max_txt_len", "run.feature_cache", "run.shard",
    ]  # fmt: skip
    lean = RunSettings(precision="bf16", feature_cache="features", shard="frozen", world_size=2)
    used = {
        **CAPTIONS,
        "use_grad_checkpoint": True,
        "llm_grad_checkpoint": True,
        "llm_precision": "bf16",
        "max_txt_len": 32,
    }
    assert model_levers(lean, used) == []
    assert training_levers(RunSettings(batch_size_train=1)) == []


def wait_until(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def stopped(processes, number: int = signal.SIGTERM, which: int = 0) -> list[int]:
    os.kill(processes[which].pid, number)
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


def test_a_signal_during_evaluation_reaches_all_ranks(config, start_processes, run_processes, tmp_path):
    options = {"max_iters": 4, "iters_per_inner_epoch": 4, "batch_size_eval": 1, "valid_splits": ["val"]}
    argv = config(hang_timeout=4, data={"tiny_data": {"train": 40, "slow_val": 0.8}}, **options)
    processes = start_processes(argv, 2)
    wait_for(tmp_path / "out" / "log.jsonl", '"evaluating"')
    assert stopped(processes, signal.SIGUSR1, which=1) == [143, 143]
    assert not rows(tmp_path / "out", "agg_metrics")
    assert "stopped after step 4" in (tmp_path / "log.0").read_text()
    assert run_processes(argv) == [0, 0]
    assert [row["count"] for row in rows(tmp_path / "out", "agg_metrics")] == [12]


def test_a_signal_while_the_model_is_built_ends_all_ranks(config, start_processes, tmp_path):
    processes = start_processes(config(hang_timeout=20, data={"tiny_data": {"train": 40, "slow_start": 5.0}}), 2)
    wait_for(tmp_path / "log.1", "slow start")
    assert stopped(processes, which=1) == [143, 143]
    assert "SIGTERM received before the run began" in (tmp_path / "log.1").read_text()
    assert "stopped: rank 1 (" in (tmp_path / "log.0").read_text()
    assert "was told to stop" in (tmp_path / "log.0").read_text()


def test_a_signal_while_no_data_comes_leaves_the_last_checkpoint(config, train, tmp_path, monkeypatch, caplog):
    train(config("whole", max_iters=4))
    argv = config(max_iters=4, num_workers=1, save_freq=1)
    late = EpochBatches(40, 4, seed=42).order(0).tolist()[13]  # a sample of the fourth step

    waits, waiting = tmp_path / "waits", interrupt.StopSignal.waiting

    @contextmanager
    def noted(self):
        with waiting(self):
            if (tmp_path / "out" / "checkpoint_3.pth").is_file():
                waits.touch()
            yield

    def never_read():
        wait_until(waits.is_file)
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(1000)

    with monkeypatch.context() as patch:
        patch.setattr(interrupt, "WAIT_SECONDS", 0.5)
        patch.setattr(interrupt.StopSignal, "waiting", noted)
        patch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)
        bad_data(patch, never_read, late)
        with pytest.raises(SystemExit) as left:
            train(argv)
    assert left.value.code == 143 and "no data came within 0.5 s" in caplog.text
    assert [row["iters"] for row in rows(tmp_path / "out")] == [1, 2, 3]
    train(argv)
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")


def test_a_signal_before_the_first_step_saves_it(config, start_processes, train, tmp_path):
    argv = config(model={"slow": 1.5, "slow_steps": [0, 2]})
    (process,) = start_processes(argv)
    wait_until((tmp_path / "out" / "config.yaml").is_file)  # written before the first step
    assert stopped([process]) == [143]
    done = len(rows(tmp_path / "out"))
    assert done <= 2 and (tmp_path / "out" / f"checkpoint_{done}.pth").is_file()
    train(argv)
    train(config("whole"))
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")
    assert trained(tmp_path / "out").keys() and same_weights(tmp_path / "out", tmp_path / "whole")

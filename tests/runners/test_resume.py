"""A run that was interrupted, in whatever way, goes on exactly as if it had not been."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import losses, rows, trained

from lavis_evlgen.errors import DivergedError, WeightsError
from lavis_evlgen.runners.checkpointing import BEST, BEST_COPY, load
from lavis_evlgen.runners.training import Training


def same_weights(a: Path, b: Path) -> bool:
    left, right = trained(a), trained(b)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def wait_for(path: Path, text: str, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.is_file() and text in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"{text} did not appear in {path}")


class Killed(Exception):
    pass


def stop_before(monkeypatch: pytest.MonkeyPatch, iters: int) -> None:
    """Make training fail before it reaches step ``iters``, as a crash would."""
    original = Training._train_step

    def fragile(self, *args):
        if self.iters + 1 == iters:
            raise Killed
        return original(self, *args)

    monkeypatch.setattr(Training, "_train_step", fragile)


@pytest.mark.parametrize("data", ["map", "workers", "ratios", "stream"])
def test_resumed_run_equals_uninterrupted_one(data, config, train, tmp_path, monkeypatch):
    options = {
        "map": {},
        "workers": {"num_workers": 2},
        "ratios": {
            "data": {"tiny_data": {"train": 40}, "tiny_more": {"train": 20}},
            "train_dataset_ratios": {"tiny_data": 2, "tiny_more": 1},
        },
        "stream": {"data": {"tiny_data": {"train": 40, "stream": True}}},
    }[data]
    train(config("whole", accum_grad_iters=2, **options))
    argv = config("parts", accum_grad_iters=2, **options)
    with monkeypatch.context() as patch:
        stop_before(patch, 7)
        with pytest.raises(Killed):
            train(argv)
    assert [row["iters"] for row in rows(tmp_path / "parts")] == [1, 2, 3, 4, 5, 6]
    train(argv)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert [row[0] for row in losses(tmp_path / "whole")] == list(range(1, 13))
    assert same_weights(tmp_path / "parts", tmp_path / "whole")


def test_validation_between_does_not_change_training(config, train, tmp_path):
    train(config("plain"))
    train(config("validated", valid_splits=["val"], health_freq=2))
    assert losses(tmp_path / "plain") == losses(tmp_path / "validated")


def test_truncated_checkpoint_gives_way_to_the_older_one(config, train, tmp_path, caplog):
    train(config("whole"))
    argv = config("damaged", max_iters=8, warmup_steps=0, init_lr=0.01, lr_sched="constant_lr")
    train(argv)
    newest = tmp_path / "damaged" / "checkpoint_8.pth"
    newest.write_bytes(newest.read_bytes()[:-700])
    before = losses(tmp_path / "damaged")
    train(argv)
    assert "checkpoint_8.pth is damaged" in caplog.text
    assert "going on after step 4" in caplog.text
    assert losses(tmp_path / "damaged") == before


def test_all_checkpoints_damaged_is_an_error(config, train, tmp_path):
    argv = config(max_iters=4)
    train(argv)
    (tmp_path / "out" / "checkpoint_4.pth").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(WeightsError, match=r"no checkpoint in .*out can be read"):
        train(argv)


def test_sigterm_saves_the_step_and_says_how_to_go_on(config, start_processes, train, tmp_path):
    train(config("whole", max_iters=40, iters_per_inner_epoch=40))
    argv = config(max_iters=40, iters_per_inner_epoch=40, model={"slow": 0.1})
    (process,) = start_processes(argv)
    wait_for(tmp_path / "out" / "log.jsonl", '"iters": 3')
    os.kill(process.pid, signal.SIGTERM)
    process.join(300)
    assert process.exitcode == 143
    done = len(rows(tmp_path / "out"))
    assert 3 <= done < 40
    assert (tmp_path / "out" / f"checkpoint_{done}.pth").is_file()
    assert f"stopped after step {done}" in (tmp_path / "log.0").read_text()
    assert "the same command again" in (tmp_path / "log.0").read_text()
    train(argv)
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")


def test_kill_9_loses_nothing_but_time(config, start_processes, train, tmp_path):
    options = {"max_iters": 30, "iters_per_inner_epoch": 5}
    train(config("whole", **options))
    argv = config(model={"slow": 0.1, "slow_steps": [12, 30]}, **options)
    (process,) = start_processes(argv)
    wait_for(tmp_path / "out" / "log.jsonl", '"iters": 12')
    os.kill(process.pid, signal.SIGKILL)
    process.join(300)
    (tmp_path / "out" / "checkpoint_12.pth.77.unfinished").write_bytes(b"half")  # as if killed while writing
    train(argv)
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")
    assert not list((tmp_path / "out").glob("*.unfinished"))


def test_two_processes_stop_and_resume_together(config, start_processes, run_processes, tmp_path):
    options = {"max_iters": 20, "iters_per_inner_epoch": 5}
    assert run_processes(config("whole", **options)) == [0, 0]
    argv = config(model={"slow": 0.3, "slow_steps": [7, 20]}, **options)
    processes = start_processes(argv, 2)
    wait_for(tmp_path / "out" / "log.jsonl", '"iters": 7')
    os.kill(processes[1].pid, signal.SIGTERM)  # one rank is told, both stop
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [143, 143]
    assert run_processes(argv) == [0, 0]
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "out", tmp_path / "whole")


def test_resume_path_continues_in_another_folder(config, train, tmp_path):
    train(config("whole"))
    train(config("first", max_iters=12, keep_checkpoints=3))
    path = tmp_path / "first" / "checkpoint_8.pth"
    train(config("second", auto_resume=False, resume_ckpt_path=str(path)))
    (folder,) = (tmp_path / "second").iterdir()
    assert losses(folder) == losses(tmp_path / "whole")[8:]


@pytest.mark.parametrize("damaged", [[BEST], [BEST, BEST_COPY]])
def test_a_damaged_best_checkpoint_gives_way_to_its_copy_or_to_later_ones(damaged, config, train, tmp_path, caplog):
    options = {"valid_splits": ["val"], "lr_sched": "constant_lr"}
    train(config("whole", **options, max_iters=12))
    train(config(**options, max_iters=8))
    for name in damaged:
        path = tmp_path / "out" / name
        path.write_bytes(path.read_bytes()[:-300])
    train(config(**options, max_iters=12))
    assert "checkpoint_best.pth is damaged" in caplog.text
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")
    best = load(tmp_path / "out" / BEST if len(damaged) == 2 else tmp_path / "out" / BEST_COPY)
    if len(damaged) == 2:  # of the validations after the damage
        assert "going on as if there were none" in caplog.text and best["iters"] == 12
    else:
        assert best["best"] == load(tmp_path / "whole" / BEST)["best"]
    assert all(torch.equal(tensor, best["model"][name]) for name, tensor in trained(tmp_path / "out").items())


def test_counts_of_nan_steps_and_bad_samples_go_on_after_a_resume(config, train, tmp_path):
    data = {"tiny_data": {"train": 40, "bad": 2}}
    options = {"data": data, "lr_sched": "constant_lr", "save_freq": 1, "max_nan_steps": 3}
    train(config(**options, max_iters=5, model={"nan_at": [3, 4]}))
    state = torch.load(tmp_path / "out" / "checkpoint_5.pth", weights_only=True)
    assert state["nan_steps"] == [2, 2] and sum(state["tally"].values()) == 20
    with pytest.raises(DivergedError, match="not finite in 3 steps in a row"):
        train(
            config(
                **options,
                max_iters=8,
                model={"nan_at": [5]},
                auto_resume=False,
                resume_ckpt_path=str(tmp_path / "out" / "checkpoint_5.pth"),
            )
        )


def test_a_run_may_go_on_with_a_loss_scale_that_it_did_not_have(config, train, tmp_path, monkeypatch):
    """From bf16 or a processor to fp16 on a GPU: the scale begins as in a new run."""
    train(config(max_iters=4))
    state = load(tmp_path / "out" / "checkpoint_4.pth")
    assert state["scaler"] == {}
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind, enabled: scaler(kind, init_scale=8.0))
    train(config(max_iters=8))
    assert load(tmp_path / "out" / "checkpoint_8.pth")["scaler"]["scale"] == 8.0
    assert load(tmp_path / "out" / "checkpoint_8.pth")["scaler"]["_growth_tracker"] == 4


def test_max_epoch_counts_passes_also_where_the_batch_size_changed(config, train, tmp_path, monkeypatch, caplog):
    """40 samples twice: 5 steps of 4, then the other 20 samples in 3 steps of at most 8, then 5 steps of 8."""
    options = {"max_iters": 0, "max_epoch": 2, "save_freq": 1}
    with monkeypatch.context() as patch:
        stop_before(patch, 6)
        with pytest.raises(Killed):
            train(config(**options))
    train(config(**options, batch_size_train=8))
    assert [row["iters"] for row in rows(tmp_path / "out")] == list(range(1, 14))
    assert (
        "checkpoint_5.pth was written by 1 process with batches of 4, now 1 process with batches of 8: the "
        "remaining 20 samples of this epoch of tiny_data are shared anew, none of them is lost or repeated."
    ) in caplog.text


def test_a_wrong_resume_path_names_the_checkpoints_beside_it(config, train, tmp_path):
    (tmp_path / "checkpoint_8.pth").touch()
    with pytest.raises(WeightsError, match=r"checkpoint_9\.pth does not exist; in .* are checkpoint_8\.pth"):
        train(config(resume_ckpt_path=str(tmp_path / "checkpoint_9.pth")))


def test_another_model_configuration_is_refused(config, train):
    train(config(max_iters=4))
    with pytest.raises(WeightsError, match=r"model.dropout: 0.2 -> 0.5.*another run.output_dir"):
        train(config(max_iters=4, model={"dropout": 0.5}))


def test_another_models_checkpoint_is_refused(config, train, tmp_path):
    train(config("wide", max_iters=4, model={"width": 24}))
    argv = config(resume_ckpt_path=str(tmp_path / "wide" / "checkpoint_4.pth"))
    shapes = r"of another shape: trained\.0\.bias \(24,\) instead of \(16,\), trained\.0\.weight \(24, 24\) instead of"
    with pytest.raises(WeightsError, match=rf"checkpoint_4.pth belongs to another model.*{shapes}"):
        train(argv)


def test_other_data_sets_are_refused(config, train):
    train(config(max_iters=4))
    with pytest.raises(WeightsError, match="trained on tiny_data, but the configuration trains on tiny_more"):
        train(config(max_iters=4, data={"tiny_more": {"train": 40}}))


def test_weights_only_file_cannot_be_resumed(config, train, tmp_path):
    train(config("first", max_iters=4))
    with pytest.raises(WeightsError, match="holds weights only"):
        train(config("second", resume_ckpt_path=str(tmp_path / "first" / "model.pth")))

"""Self-critical training of a tiny EVLGen through launcher and runner."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_captions import outspoken_llama, write_pictures
from tiny_runs import losses, rows, trained, write_config

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.runners.training import Training

FIGURES = ("reward", "baseline_reward", "reward_gap", "ended")


@pytest.fixture(scope="session")
def outspoken_llm(tmp_path_factory: pytest.TempPathFactory, parity_dir: Path) -> str:
    return outspoken_llama(tmp_path_factory.mktemp("llm"), parity_dir / "tiny_llama")


@pytest.fixture
def scst(tmp_path: Path, tiny_config: Callable[..., dict], outspoken_llm: str) -> Callable[..., list[str]]:
    """Writes pictures in two splits and a configuration; the launcher arguments for it."""
    data = write_pictures(tmp_path, train=12, val=4)
    model = {**tiny_config("any"), "arch": "evlgen", "model_type": "custom", "llm_model": outspoken_llm}
    defaults = {"max_iters": 8, "max_len": 5, "num_beams": 1}

    def write(out: str = "out", model: dict = model, task: str = "evlgen_scst", **run: Any) -> list[str]:
        if task == "evlgen_scst":
            run = {"scst_samples": 2, **run}
        return write_config(tmp_path, out, model, data, task=task, **{**defaults, **run})

    return write


def stop_before(monkeypatch: pytest.MonkeyPatch, iters: int) -> None:
    """Make training fail before it reaches step ``iters``, as a crash would."""
    original = Training._train_step

    def fragile(self, *args):
        if self.iters + 1 == iters:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(Training, "_train_step", fragile)


def test_rewards_stand_in_the_log_and_evaluation_is_the_captioning_tasks(scst, train, tmp_path):
    metrics = train(scst(valid_splits=["val"], health_freq=4, accum_grad_iters=2))
    found = rows(tmp_path / "out")
    assert [row["iters"] for row in found] == list(range(1, 9))
    for row in found:
        assert all(math.isfinite(row[name]) for name in FIGURES)
        assert row["reward_gap"] == pytest.approx(row["reward"] - row["baseline_reward"])
        assert 0 <= row["ended"] <= 1
    assert any(row["reward"] > 0 for row in found) and any(row["grad_norm"] > 0 for row in found)
    assert metrics["val"]["captions"] == 4 and "CIDEr" in metrics["val"]
    health = rows(tmp_path / "out", "held_out_loss")
    assert [row["iters"] for row in health] == [4, 8] and health[0]["held_out_loss"] > 1  # cross-entropy, not reward


@pytest.mark.parametrize("baseline", ["greedy", "mean"])
def test_a_killed_run_goes_on_bit_for_bit(baseline, scst, train, tmp_path, monkeypatch):
    options = {"scst_baseline": baseline, "accum_grad_iters": 2, "save_freq": 1, "max_grad_norm": 1.0}
    train(scst("whole", **options))
    argv = scst("parts", **options)
    with monkeypatch.context() as patch:
        stop_before(patch, 6)
        with pytest.raises(KeyboardInterrupt):
            train(argv)
    assert len(rows(tmp_path / "parts")) == 5
    train(argv)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert len({row["loss"] for row in rows(tmp_path / "whole")}) > 4
    assert [row["reward"] for row in rows(tmp_path / "parts")] == [row["reward"] for row in rows(tmp_path / "whole")]
    left, right = trained(tmp_path / "parts"), trained(tmp_path / "whole")
    assert all(torch.equal(left[name], right[name]) for name in right)


def test_two_processes_draw_differently_and_stay_together(scst, run_processes, tmp_path):
    options = {"batch_size_train": 2, "accum_grad_iters": 2, "valid_splits": ["val"], "save_freq": 1, "max_iters": 4}
    assert run_processes(scst(**options)) == [0, 0], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
    whole = losses(tmp_path / "out")
    assert len(whole) == 4
    state = torch.load(tmp_path / "out" / "checkpoint_3.pth", weights_only=True)
    assert len(state["rng"]) == 2 and not torch.equal(state["rng"][0]["torch"], state["rng"][1]["torch"])
    final = trained(tmp_path / "out")
    (tmp_path / "out" / "checkpoint_4.pth").unlink()
    assert run_processes(scst(**options)) == [0, 0]
    assert losses(tmp_path / "out") == whole
    again = trained(tmp_path / "out")
    assert all(torch.equal(final[name], again[name]) for name in final)


def test_mixed_precision(scst, train, tmp_path):
    train(scst(precision="bf16", max_iters=3))
    found = rows(tmp_path / "out")
    assert len(found) == 3 and not any("skipped" in row for row in found)
    assert all(row["grad_norm"] > 0 for row in found if row["reward"] or row["baseline_reward"])


def test_wrong_configurations_stop_before_training(scst, train):
    with pytest.raises(ConfigError, match="run.scst_sampels is unknown; did you mean 'scst_samples'"):
        train(scst(scst_sampels=3))
    with pytest.raises(ConfigError, match="run.scst_samples is unknown"):
        train(scst(task="captioning", scst_samples=2))
    with pytest.raises(ConfigError, match="TinyModel cannot sample captions"):
        train(scst(model={"arch": "tiny", "model_type": "default"}))

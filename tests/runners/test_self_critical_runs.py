"""Self-critical training of a tiny EVLGen through launcher and runner."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_runs import losses, rows, trained, write_config

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.runners.training import Training

WORDS = "a o t of the is on in car cat s w c p r b d f".split()  # noqa: SIM905  one token each
FIGURES = ("reward", "baseline_reward", "reward_gap", "ended")


@pytest.fixture(scope="session")
def outspoken_llm(tmp_path_factory: pytest.TempPathFactory, parity_dir: Path) -> str:
    """The tiny LLaMA with a head 20 times as large: a soft prompt moves its words, which it hardly does otherwise."""
    folder = tmp_path_factory.mktemp("llm")
    shutil.copytree(parity_dir / "tiny_llama", folder, dirs_exist_ok=True)
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights["lm_head.weight"] *= 20
    torch.save(weights, folder / "pytorch_model.bin")
    return str(folder)


@pytest.fixture
def scst(tmp_path: Path, tiny_config: Callable[..., dict], outspoken_llm: str) -> Callable[..., list[str]]:
    """Writes six pictures in two splits and a configuration; the launcher arguments for it."""
    for split, count in (("train", 12), ("val", 4)):
        lines = []
        for number in range(count):
            Image.new("RGB", (56, 56), (20 * number, 90, 255 - 20 * number)).save(tmp_path / f"{split}{number}.png")
            first, second, third = WORDS[number % 6 * 3 :][:3]
            captions = [f"{first} {second} {third}", f"{second} {first} the cat"]
            lines.append(json.dumps({"image": f"{split}{number}.png", "caption": captions}))
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    processor = {"name": "blip_image_eval", "image_size": 56}
    data = {
        "image_caption": {
            "images": str(tmp_path),
            "annotations": {"train": str(tmp_path / "train.jsonl"), "val": str(tmp_path / "val.jsonl")},
            "captions": "first",
            "vis_processor": {"train": processor, "eval": processor},
            "text_processor": {"train": {"name": "blip_caption"}, "eval": {"name": "blip_caption"}},
        }
    }

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
    with pytest.raises(ConfigError, match="TinyModel cannot draw captions"):
        train(scst(model={"arch": "tiny", "model_type": "default"}))

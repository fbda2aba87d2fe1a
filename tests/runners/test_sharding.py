"""Frozen parts spread over processes: the same losses, gradients and texts as whole ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sharded_checks import compare
from tiny_captions import outspoken_llama, write_pictures
from tiny_runs import losses, rows, start_ranks, write_config
from transformers import Dinov2Config, Dinov2Model

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.runners.checkpointing import load
from lavis_evlgen.runners.sharding import shard

MODEL_TYPES = {"opt": "pretrain_opt2.7b", "llama": "custom", "video": "custom"}
KINDS = tuple(MODEL_TYPES)


@pytest.fixture(scope="session")
def models(tmp_path_factory, tiny_config, parity_dir, reference) -> dict[str, dict[str, Any]]:
    """Models without dropout: OPT behind eva_vit, LLaMA behind DINOv2, and clips with all layers checkpointed."""
    llama = outspoken_llama(tmp_path_factory.mktemp("llm"), parity_dir / "tiny_llama")
    vit = str(tmp_path_factory.mktemp("vit"))
    torch.manual_seed(1)
    size = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    Dinov2Model(Dinov2Config(**size)).save_pretrained(vit)
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    still = {"connector_config": {**reference["bert_config"], **still}}
    dinov2 = {"vit_model": f"hf:{vit}", "vit_config": None, "tome_r": 3, "llm_model": llama}
    saving = {"use_grad_checkpoint": True, "llm_grad_checkpoint": True}
    return {
        "opt": {"arch": "evlgen_opt", **tiny_config("opt", **still)},
        "llama": {"arch": "evlgen", **tiny_config("any", **still, **dinov2)},
        "video": {"arch": "evlgen_video", **tiny_config("video", **still, **saving), "llm_model": llama},
    }


@pytest.fixture(scope="session")
def compared(forkserver, models, tmp_path_factory) -> list[dict[str, Any]]:
    """What each of two processes finds, see :func:`compare`."""
    out = str(tmp_path_factory.mktemp("compared") / "found")
    processes = start_ranks(forkserver, compare, 2, models, out)
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    return [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_sharded_parts_give_what_whole_ones_give(compared, kind):
    for found in (of[kind] for of in compared):
        for whole, part in found["losses"]:
            assert part == pytest.approx(whole, abs=1e-6) and whole > 1
        assert found["same_gradient"] == [True, True]
        for whole, part in [*found["captions"], found["answers"], found["drawn"]]:
            assert part == whole
    assert len(compared[0][kind]["captions"][1][0]) == 6 and len(compared[1][kind]["captions"][1][0]) == 4
    assert compared[0][kind]["captions"] != compared[1][kind]["captions"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_process_holds_its_part_of_the_frozen_weights(compared, kind):
    local = [of[kind]["bytes"][0] for of in compared]
    whole = compared[0][kind]["whole_bytes"][0]
    assert compared[0][kind]["bytes"][1] == whole
    assert whole <= sum(local) < 1.02 * whole and max(local) < 0.52 * whole  # single rows cannot be divided


@pytest.mark.parametrize("kind", KINDS)
def test_processes_of_one_machine_build_in_turn(compared, kind):
    first, second = (of[kind]["turn"] for of in compared)
    assert len(first) == len(second) == 2 and first[1] < second[0]


def test_batches_are_lent_until_no_rank_has_any(compared):
    first, second = (of["in_step"] for of in compared)
    assert first == [{"image_id": ["00"]}, {"bad_samples": ["x"], "lent": ["11"]}, {}, {}]
    assert second == [{"image_id": ["10"]}, {"image_id": ["11"]}, {"bad_samples": ["y"]}, {"image_id": []}]
    assert [of["as_many"] for of in compared] == [
        [[0, True], [11, False], [12, False]],
        [[10, True], [11, True], [12, True]],
    ]


@pytest.fixture
def captioning(tmp_path: Path, models: dict[str, Any]) -> Callable[..., list[str]]:
    """Writes a captioning run of six pictures a step over all processes; the launcher arguments for it."""
    data = write_pictures(tmp_path, train=18, val=7)

    def write(out: str, kind: str = "opt", processes: int = 1, **run: Any) -> list[str]:
        defaults = {
            "task": "captioning",
            "max_iters": 4,
            "iters_per_inner_epoch": 2,
            "batch_size_train": 6 // processes,
            "batch_size_eval": 2,
            "valid_splits": ["val"],
            "report_metric": False,
            "health_freq": 2,
            "health_batches": 6,
            "max_len": 5,
            "num_beams": 2,
            "keep_checkpoints": 5,
        }
        model = {**models[kind], "model_type": MODEL_TYPES[kind]}
        return write_config(tmp_path, out, model, data, **{**defaults, **run})

    return write


def same_losses(left: Path, right: Path, *keys: str) -> None:
    """Assert equal captions and losses, in 32 bits, of two runs."""
    for key in keys:
        pairs = list(zip(rows(left, key), rows(right, key), strict=True))
        assert pairs and all(a[key] == pytest.approx(b[key], abs=1e-5) for a, b in pairs), key
    assert len({row["loss"] for row in rows(left)}) == len(rows(left)) == 4  # it does train
    for epoch in (2, 4):
        found = [json.loads((of / "result" / f"val_epoch{epoch}.json").read_text()) for of in (left, right)]
        captions = [{row["image_id"]: row["caption"] for row in each} for each in found]
        assert len(found[0]) == len(found[1]) == len(captions[0]) == 7 and captions[0] == captions[1]


def test_runs_of_one_two_and_three_processes_are_the_same(captioning, train, run_processes, tmp_path):
    train(captioning("one"))
    for out, processes, sharding in (("ddp", 2, "none"), ("two", 2, "frozen"), ("three", 3, "frozen")):
        argv = captioning(out, processes=processes, shard=sharding)
        assert run_processes(argv, processes) == [0] * processes, (tmp_path / "log.0").read_text()
        same_losses(tmp_path / "one", tmp_path / out, "loss")
    # which pictures the health check compares depends on the number of processes
    same_losses(tmp_path / "ddp", tmp_path / "two", "loss", "held_out_loss", "shuffled_loss")
    ddp, two = (load(tmp_path / out / "checkpoint_4.pth") for out in ("ddp", "two"))
    assert ddp.keys() == two.keys() and ddp["model"].keys() == two["model"].keys()
    for name, tensor in two["model"].items():
        assert type(tensor) is torch.Tensor and torch.allclose(tensor, ddp["model"][name], atol=1e-6)


def test_a_sharded_run_goes_on_whole_and_by_one_process(captioning, train, run_processes, tmp_path):
    """With features that each process computes at its own pace, by a ViT that stays whole."""
    cache = {"feature_cache": str(tmp_path / "features")}
    assert run_processes(captioning("two", processes=2, shard="frozen", **cache), 2) == [0, 0]
    train(captioning("one", **cache))
    (tmp_path / "two" / "checkpoint_4.pth").unlink()
    train(captioning("two", **cache))
    same_losses(tmp_path / "one", tmp_path / "two", "loss")


def test_another_language_model_and_vit_with_an_unreadable_batch(captioning, run_processes, tmp_path):
    options = {"kind": "llama", "processes": 6, "max_bad_share": 0.9, "accum_grad_iters": 2, "max_iters": 2}
    argv = [captioning(out, shard=sharding, **options) for out, sharding in (("ddp", "none"), ("sharded", "frozen"))]
    for number in range(0, 18, 2):  # one picture a batch: every second batch is empty
        (tmp_path / f"train{number}.png").write_bytes(b"no picture")
    (tmp_path / "val0.png").write_bytes(b"no picture")
    for each in argv:
        assert run_processes(each, 2) == [0, 0], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
    left, right = losses(tmp_path / "ddp"), losses(tmp_path / "sharded")
    assert [row[0] for row in left] == [row[0] for row in right] == [1, 2]
    assert [row[1] for row in left] == pytest.approx([row[1] for row in right], abs=1e-5)
    results = [json.loads((tmp_path / out / "result" / "val_epoch2.json").read_text()) for out in ("ddp", "sharded")]
    assert sorted(map(str, results[0])) == sorted(map(str, results[1])) and len(results[0]) == 6


def test_mixed_precision_and_self_critical_training(captioning, run_processes, tmp_path):
    options = {"kind": "llama", "processes": 2, "precision": "bf16", "max_iters": 2}
    options |= {"task": "evlgen_scst", "scst_samples": 2}
    for out, sharding in (("ddp", "none"), ("sharded", "frozen")):
        assert run_processes(captioning(out, shard=sharding, **options), 2) == [0, 0], (tmp_path / "log.0").read_text()
    keys = ("loss", "reward", "baseline_reward", "held_out_loss")
    left, right = (
        [[row.get(key) for key in keys] for row in rows(tmp_path / out, "iters")] for out in ("ddp", "sharded")
    )
    assert left == right and len(rows(tmp_path / "ddp")) == 2


def test_what_cannot_be_sharded(captioning, train):
    with pytest.raises(ConfigError, match="run.shard: 'frosen' is unknown; did you mean 'frozen'"):
        train(captioning("one", shard="frosen"))
    with pytest.raises(ConfigError, match="run.shard: LAVIS's runners cannot train sharded models"):
        train([*captioning("one", shard="frozen"), "--stock-runner"])
    with pytest.raises(ConfigError, match="run.shard: Linear cannot be sharded"):
        shard(torch.nn.Linear(1, 1), None)

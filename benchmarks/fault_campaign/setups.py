"""The runs that are disturbed: their configurations, their data, and how each is run once undisturbed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_runs  # of the tests

from . import files, parts  # noqa: F401  (registers the parts)
from .runs import Failed, Run

ROOT = Path(__file__).parents[2]
RUN: dict[str, Any] = {**tiny_runs.RUN, "batch_size_eval": 6, "max_bad_share": 1.0}
STEP = 0.01  # seconds that the tiny model sleeps in a step, so that moments can be hit


@dataclass(frozen=True)
class Setup:
    """``config(data)`` is the run's configuration on data in a folder, which ``write`` fills."""

    config: Callable[[Path], dict[str, Any]]
    write: Callable[[Path], None] | None = None
    processes: int = 1
    stop_at: int = 0
    """The undisturbed run is killed when the checkpoint of this step is there."""


def tiny(
    steps: int = 24, data: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **run: Any
) -> Callable[[Path], dict[str, Any]]:
    """The tests' tiny model on their tiny data."""
    return lambda _folder: {
        "model": {"arch": "tiny", "model_type": "default", "slow": STEP, **(model or {})},
        "datasets": data or {"tiny_data": {"train": 40}},
        "run": {**RUN, "max_iters": steps, "valid_splits": ["val"], **run},
    }


def numbers(folder: Path) -> dict[str, Any]:
    """Without dropout: a step that is left out then draws no more random numbers than one that is skipped."""
    return tiny(
        data={"fault_numbers": {"numbers": str(folder / "numbers.npy")}},
        model={"dropout": 0.0},
        valid_splits=[],
        max_nan_steps=3,
    )(folder)


VIT: dict[str, Any] = {"img_size": files.SIZE, "patch_size": 14, "embed_dim": 64, "depth": 2, "num_heads": 4}
VIT |= {"mlp_ratio": 4.0, "qkv_bias": True, "use_mean_pooling": False, "drop_path_rate": 0.0}
CONNECTOR = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
CONNECTOR |= {"max_position_embeddings": 32, "vocab_size": 100}
EVLGEN = {
    "arch": "evlgen",
    "model_type": "custom",
    "vit_model": "eva_vit",
    "vit_config": VIT,
    "image_size": files.SIZE,
    "vit_precision": "fp32",
    "bert_model": None,
    "connector_config": CONNECTOR,
    "tome_r": 4,
    "llm_precision": "fp32",
    "llm_model": str(ROOT / "tests" / "fixtures" / "parity" / "tiny_opt"),
}
PROCESSORS = {
    "train": {"name": "blip2_image_train", "image_size": files.SIZE},
    "eval": {"name": "blip_image_eval", "image_size": files.SIZE},
}


def evlgen(data: dict[str, Any], **model: Any) -> dict[str, Any]:
    run = {**RUN, "task": "fault_captioning", "max_iters": 12, "init_lr": 0.001}
    return {"model": {**EVLGEN, **model}, "datasets": data, "run": run}


def pictures(folder: Path) -> dict[str, Any]:
    data = {"images": str(folder), "annotations": {"train": str(folder / "train.jsonl")}, "vis_processor": PROCESSORS}
    return evlgen({"image_caption": data})


def tar(folder: Path) -> dict[str, Any]:
    train = {"train": PROCESSORS["train"]}
    return evlgen({"image_caption_tar": {"shards": str(folder / "*.tar"), "shuffle_buffer": 4, "vis_processor": train}})


def clips(folder: Path) -> dict[str, Any]:
    sizes = {"image_size": files.SIZE, "num_frames": 2}
    processors = {split: {"name": f"evlgen_video_{split}", **sizes} for split in ("train", "eval")}
    data = {"videos": str(folder), "annotations": {"train": str(folder / "train.jsonl")}, "vis_processor": processors}
    return evlgen({"video_caption": data}, arch="evlgen_video", num_frames=2)


MIXED = {"tiny_data": {"train": 40}, "tiny_more": {"train": 20}}
SETUPS = {
    "map": Setup(tiny(accum_grad_iters=2)),
    "stream": Setup(tiny(data={"tiny_data": {"train": 40, "stream": True}}, valid_splits=[])),
    "mixture": Setup(tiny(data=MIXED, valid_splits=[], train_dataset_ratios={"tiny_data": 2, "tiny_more": 1})),
    "workers": Setup(tiny(num_workers=2)),
    "large": Setup(tiny(model={"width": 1024}, init_lr=1e-4, warmup_lr=1e-5)),
    "two": Setup(tiny(hang_timeout=4), processes=2),
    "stopped at 12": Setup(tiny(keep_checkpoints=3), stop_at=12),
    "stopped at 20": Setup(tiny(keep_checkpoints=3), stop_at=20),
    "kept": Setup(tiny(keep_checkpoints=3)),
    "numbers": Setup(numbers, files.write_numbers),
    "pictures": Setup(pictures, files.write_pictures),
    "tar": Setup(tar, files.write_shards),
    "clips": Setup(clips, files.write_clips),
}


def run_undisturbed(name: str, references: Path) -> None:
    """Run a setup in ``references/name``; its data go to ``data`` and its duration to ``seconds``."""
    setup, folder = SETUPS[name], references / name
    (folder / "data").mkdir(parents=True)
    if setup.write:
        setup.write(folder / "data")
    run = Run(folder, setup.config(folder / "data"), setup.processes)
    began = time.monotonic()
    run.start()
    if setup.stop_at:
        run.wait_until((run.out / f"checkpoint_{setup.stop_at}.pth").is_file)
        run.kill()
    elif any(codes := run.wait()):
        raise Failed(f"the undisturbed run {name!r} ended with {codes}: {run.last_words()}")
    (folder / "seconds").write_text(str(time.monotonic() - began))

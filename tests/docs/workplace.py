"""The folder that the pages' blocks are run in: what a reader has by then, at a size for tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pages import ROOT
from PIL import Image
from reports.finished_run import make_data, train

PICTURES = 12
LINKED = ("benchmarks", "configs", "docs", "lavis", "lavis_evlgen", "projects", "tests")  # as in a clone


def make_workplace(folder: Path, tiny: dict, parity: Path) -> None:
    """Pictures with captions and questions, a checkpoint of the official code, and the demo's folder after a run of
    a tiny model; the repository's own folders as links."""
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    (folder / "pictures").mkdir()
    for number in range(PICTURES):
        Image.effect_noise((60, 50), 80).convert("RGB").save(folder / "pictures" / f"{number}.png")
    Image.effect_noise((300, 200), 80).convert("RGB").save(folder / "pictures" / "dog.jpg")
    captions = [{"image": f"{number}.png", "caption": f"picture number {number}"} for number in range(PICTURES)]
    questions = [{"image": row["image"], "question": "what is it?", "answer": row["caption"]} for row in captions]
    for name, rows in {"my": captions, "train": captions[:8], "val": captions[8:], "test": captions[:2]}.items():
        _write(folder / f"{name}.jsonl", rows)
    _write(folder / "questions.jsonl", questions)
    shutil.copy(parity / "liptome_opt.pth", folder / "checkpoint_250000.pth")
    _demo(folder / "outputs" / "demo", tiny)
    (folder / "outputs" / "mine").symlink_to("demo")


def tiny_training(tiny: dict, datasets: DictConfig) -> list[str]:
    """Options that put a tiny model in the place of a configuration's own, for two steps."""
    named = {key: value for key, value in tiny.items() if not isinstance(value, dict)}
    named |= {f"{key}.{name}": value for key in ("vit_config", "connector_config") for name, value in tiny[key].items()}
    named |= {"arch": "evlgen", "model_type": "custom", "llm_end": None}
    run: dict[str, Any] = {"max_iters": 2, "iters_per_inner_epoch": 2, "warmup_steps": 1, "batch_size_train": 2}
    run |= {"num_workers": 0, "max_len": 4, "num_beams": 1, "precision": "fp32", "device": "cpu"}
    model = (f"model.{key}={'null' if value is None else value}".replace(" ", "") for key, value in named.items())
    splits = [f"datasets.{name}.vis_processor.{split}" for name in map(str, datasets) for split in ("train", "eval")]
    sizes = (f"{split}.image_size=56" for split in splits)
    names = (f"{split}.name=blip_image_eval" for split in splits if OmegaConf.select(datasets, split[9:]) is None)
    return [*model, *(f"run.{key}={value}" for key, value in run.items()), *sizes, *names]


def _demo(folder: Path, tiny: dict) -> None:
    """As `make demo` leaves it, in this as far as pages name its files."""
    data = folder / "data"
    files = make_data(data, {"train": 6, "val": 3}, labels=False)
    train(data, tiny, files, output_dir=str(folder), test_splits=[])
    (data / "test").mkdir()
    for number in range(2):
        shutil.copy(data / "val" / f"{number}.png", data / "test" / f"{number:06d}.png")


def _write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

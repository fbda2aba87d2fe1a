"""A finished run of a tiny model on a handful of pictures, made through the real launcher."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from PIL import Image, ImageDraw

from lavis_evlgen import launch

COLOURS = {"red": (220, 50, 40), "green": (60, 170, 70), "blue": (50, 90, 220)}
SHAPES = ("box", "disc")
# of commands that run in the folder of such a run
MODEL = ("--checkpoint", "run/model.pth", "--device", "cpu")
PICTURES = ("test/0.png", "test/1.png")
LABELLED = {"train": 6, "test": 3, "test_unseen": 2}


def draw(path: Path, background: str, shape: str) -> None:
    picture = Image.new("RGB", (64, 48), COLOURS[background])
    pen = ImageDraw.Draw(picture)
    (pen.rectangle if shape == "box" else pen.ellipse)((12, 12, 36, 36), fill="white")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def make_data(folder: Path, splits: dict[str, int] = LABELLED, labels: bool = True) -> dict[str, str]:
    """Pictures and annotation files by split; without ``labels`` the records have only picture and caption."""
    files = {}
    for split, count in splits.items():
        rows = []
        for number in range(count):
            background, shape = list(COLOURS)[number % 3], SHAPES[number % 2]
            draw(folder / split / f"{number}.png", background, shape)
            row = {
                "image": f"{split}/{number}.png",
                "caption": [f"a {shape} on {background}", f"{background} & {shape}"],
            }
            rows.append({**row, "things": [shape], "background": background} if labels else row)
        files[split] = str(folder / f"{split}.jsonl")
        Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return files


def datasets(folder: Path, files: dict[str, str]) -> dict[str, Any]:
    """The section of a configuration for what `make_data` wrote into the folder."""
    processor = {"name": "blip_image_eval", "image_size": 56}
    processors = {"train": processor, "eval": processor}
    return {"image_caption": {"images": str(folder), "annotations": files, "vis_processor": processors}}


def write_config(folder: Path, model: dict[str, Any], files: dict[str, str], **run: Any) -> Path:
    """The configuration of a run into ``folder/run``; its path."""
    config = {
        "model": {"arch": "evlgen", "model_type": "custom", **model},
        "datasets": datasets(folder, files),
        "run": {
            "task": "captioning",
            "max_iters": 4,
            "batch_size_train": 2,
            "batch_size_eval": 3,
            "accum_grad_iters": 2,
            "init_lr": 1e-3,
            "log_freq": 2,
            "num_beams": 1,
            "max_len": 4,
            "metrics_tokenizer": "java_free",
            "test_splits": [split for split in files if split != "train"],
            "output_dir": str(folder / "run"),
            "auto_resume": True,
            "device": "cpu",
            "num_threads": 1,
            **run,
        },
    }
    path = folder / "train.yaml"
    OmegaConf.save(OmegaConf.create(config), path)
    return path


def train(folder: Path, model: dict[str, Any], files: dict[str, str], **run: Any) -> Path:
    """Train and evaluate; the run folder."""
    launch.start(["--cfg-path", str(write_config(folder, model, files, **run))], evaluate=False)
    return folder / "run"

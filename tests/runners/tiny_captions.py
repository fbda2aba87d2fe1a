"""Coloured pictures with captions of three one-token words, and runs of a tiny EVLGen on them."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image

# one token each; tiny OPT cuts longer first words in two, so threes begin with a short one: all captions are as long
WORDS = "a of the o is on t in car c cat s w p r b d f".split()  # noqa: SIM905


def write_pictures(folder: Path, **counts: int) -> dict[str, Any]:
    """Pictures of each split and their annotations in ``folder``; the `datasets` section for them."""
    for split, count in counts.items():
        lines = []
        for number in range(count):
            Image.new("RGB", (56, 56), (20 * number % 256, 90, 255 - 20 * number % 256)).save(
                folder / f"{split}{number}.png"
            )
            first, second, third = WORDS[number % 6 * 3 :][:3]
            captions = [f"{first} {second} {third}", f"{second} {first} the cat"]
            lines.append(json.dumps({"image": f"{split}{number}.png", "caption": captions}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    processor = {"name": "blip_image_eval", "image_size": 56}
    return {
        "image_caption": {
            "images": str(folder),
            "annotations": {split: str(folder / f"{split}.jsonl") for split in counts},
            "captions": "first",
            "vis_processor": {"train": processor, "eval": processor},
            "text_processor": {"train": {"name": "blip_caption"}, "eval": {"name": "blip_caption"}},
        }
    }


def outspoken_llama(folder: Path, source: Path) -> str:
    """The tiny LLaMA with a head 20 times as large: a soft prompt moves its words, which it hardly does otherwise."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights["lm_head.weight"] *= 20
    torch.save(weights, folder / "pytorch_model.bin")
    return str(folder)

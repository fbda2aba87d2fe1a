"""Clips as strips of their frames, with what several models wrote about them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from lavis_evlgen.datasets.video_reading import read_clip
from lavis_evlgen.metrics.captions import normalise
from lavis_evlgen.reports import page

GAP = 4  # pixels between frames
FRAME = 112  # least pixels of a frame's side on the page


def strip(frames: Sequence[np.ndarray], gap: int = GAP, side: int = FRAME) -> Image.Image:
    """Frames, uint8 [H, W, 3], side by side on white; small ones enlarged by a whole factor, their pixels kept."""
    factor = max(1, side // min(frames[0].shape[:2]))
    pictures = [np.kron(frame, np.ones((factor, factor, 1), dtype=np.uint8)) for frame in frames]
    height, width, _ = pictures[0].shape
    row = np.full((height, len(pictures) * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        left = number * (width + gap)
        row[:, left : left + width] = picture
    return Image.fromarray(row)


def pairs(records: Sequence[Any], count: int) -> list[tuple[int, int]]:
    """Indices of ``count`` episodes and their reverses, drawn at random but always the same, every mission in turn."""
    places = {record.image_id: index for index, record in enumerate(records)}
    by_mission: dict[str, list[tuple[int, int]]] = {}
    for image_id, index in places.items():
        other = places.get(f"{image_id}_reversed")
        if other is not None:
            by_mission.setdefault(records[index].extras.get("mission", ""), []).append((index, other))
    rng = random.Random(0)
    decks = [rng.sample(found, len(found)) for found in by_mission.values()]
    longest = max(map(len, decks), default=0)
    return [deck[turn] for turn in range(longest) for deck in decks if turn < len(deck)][:count]


def clip_figure(dataset: Any, index: int, captions: dict[str, str], num_frames: int) -> str:
    """A strip above its true caption and, by model, what was written, right or wrong."""
    record = dataset.record(index)
    frames = read_clip(dataset.file(record), num_frames).numpy()
    truth = record.captions[0]
    rows = []
    for name, caption in captions.items():
        right = normalise(caption) == normalise(truth)
        mark = "<span class=good>✓</span>" if right else "<span class=bad>✗</span>"
        rows.append(f"<li>{mark} {escape(caption) or '(nothing)'} <span class=soft>{escape(name)}</span></li>")
    return page.figure(strip(list(frames)), f"<strong>{escape(truth)}</strong><ul>{''.join(rows)}</ul>", truth)

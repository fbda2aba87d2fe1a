"""What a captioner gets right of the embedded pictures, drawn anew by the spec of a data set."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lavis_evlgen.datasets.records import Record
from lavis_evlgen.embedded.pictures import drawn
from lavis_evlgen.tasks.captioning import CaptioningTask

BATCH = 30


@dataclass(frozen=True)
class _Split:
    """What the captioning task wants to know of a data set."""

    records: list[Record]

    def ground_truth(self) -> dict[str, list[str]]:
        return {record.image_id: record.captions for record in self.records}


def measure(
    model: Any,
    process: Any,
    spec: Mapping[str, Any],
    split: str,
    generation: Mapping[str, Any],
    indices: Sequence[int] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The scores of a split, as the task `captioning` gives them, and its captions by image id.

    Args:
        process: a PIL picture to [3, H, W].
        spec: the content of the data set's spec.json.
        generation: num_beams, max_len and min_len.
        indices: the pictures of the split; None takes all.
    """
    task = CaptioningTask(**generation, evaluate=True, report_metric=True)
    records: list[Record] = []
    rows: dict[str, dict[str, str]] = {}
    batch: list[torch.Tensor] = []
    pictures = list(drawn(spec, split, indices))
    for number, (row, picture) in enumerate(pictures, start=1):
        extras = {key: value for key, value in row.items() if key not in ("image", "image_id", "caption")}
        records.append(Record(row["image"], row["caption"], row["image_id"], extras))
        batch.append(process(picture))
        if len(batch) == BATCH or number == len(pictures):
            samples = {"image": torch.stack(batch), "image_id": [record.image_id for record in records[-len(batch) :]]}
            rows |= {found["image_id"]: found for found in task.valid_step(model, samples)}
            batch = []
    captions = {image_id: row["caption"] for image_id, row in rows.items()}
    return task.score(rows, _Split(records), split), captions


def some(count: int, of: int) -> list[int]:
    """Always the same `count` numbers below `of`, in order."""
    return sorted(random.Random(0).sample(range(of), count))

"""What the campaign's runs need: pictures in a file of numbers, and a task that notes and leaves out samples."""

import functools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiny_lavis  # of the tests: its builder's default yaml, model and task
import torch
from lavis.common.registry import registry
from torch.utils.data import Dataset

from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.registration_tools import register
from lavis_evlgen.tasks.captioning import CaptioningTask


class NumberFile(tiny_lavis.TinyData):
    """The tiny pictures plus those of an .npy file [N, 3, 4, 4], which may hold NaN.

    ``leave_out`` has pairs (n, index): asked for ``index`` for the n-th time (from 0), it has only a bad sample.
    """

    def __init__(self, path: Path, leave_out: Sequence[Sequence[int]]) -> None:
        self.numbers = np.load(path)
        super().__init__(len(self.numbers))
        self.leave_out = {tuple(pair) for pair in leave_out}
        self.asked: Counter[int] = Counter()

    def __getitem__(self, index: int) -> dict[str, Any]:
        time = self.asked[index]
        self.asked[index] += 1
        if (time, index) in self.leave_out:
            return {"bad": f"{index}: left out"}
        sample = super().__getitem__(index)
        return {**sample, "image": sample["image"] + torch.from_numpy(self.numbers[index])}


@register("builder", "fault_numbers")
class NumberFileBuilder(tiny_lavis.TinyBuilder):
    """Pictures of the file ``numbers``."""

    DATASET_CONFIG_DICT = {"default": str(Path(__file__).parent / "fault_numbers.yaml")}

    def build_datasets(self) -> dict[str, Dataset]:
        return {"train": NumberFile(Path(self.config.numbers), self.config.leave_out)}


@register("task", "fault_captioning")
class NotingTask(CaptioningTask):
    """Captioning that notes the ids of every training step in ``seen.jsonl`` and takes some samples for bad ones."""

    RUN_KEYS = (*CaptioningTask.RUN_KEYS, "leave_out")

    def __init__(self, *args: Any, leave_out: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.leave_out = frozenset(leave_out)

    def build_datasets(self, cfg: Any) -> dict[str, dict[str, Any]]:
        datasets = super().build_datasets(cfg)
        for splits in datasets.values():
            train = splits["train"]
            train.collater = functools.partial(self._collate, train.collater)
        return datasets

    def _collate(self, collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
        return collate(
            [BadSample(s["image_id"], "left out") if s["image_id"] in self.leave_out else s for s in samples]
        )

    def train_step(self, model: torch.nn.Module, samples: dict[str, Any]) -> torch.Tensor:
        step = samples["epoch"] * samples["num_iters_per_epoch"] + samples["iters"] + 1
        with open(Path(registry.get_path("output_dir"), "seen.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "ids": samples["image_id"]}) + "\n")
        return super().train_step(model, samples)

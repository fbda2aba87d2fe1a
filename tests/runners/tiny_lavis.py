"""A LAVIS model, data set, builder and task that train in milliseconds: a picture of class k, called "class k"."""

import os
import time
from pathlib import Path
from typing import Any

import torch
from lavis.common.dist_utils import get_rank
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from lavis.models.base_model import BaseModel
from lavis.tasks.base_task import BaseTask
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import Dataset, IterableDataset, default_collate

from lavis_evlgen.registration_tools import register

HERE = Path(__file__).parent
CLASSES = 6


@register("model", "tiny")
class TinyModel(BaseModel):
    """A frozen layer, a trained one with dropout, and a classifier; misbehaves where its configuration says so."""

    PRETRAINED_MODEL_CONFIG_DICT = {"default": str(HERE / "tiny_model.yaml")}
    CONFIG_KEYS = frozenset({"width", "dropout", "nan_at", "nan_rank", "slow", "slow_steps", "hang_at"})

    def __init__(
        self,
        width: int,
        dropout: float,
        nan_at: list[int],
        nan_rank: int,
        slow: float,
        slow_steps: list[int],
        hang_at: int = -1,
    ) -> None:
        """``slow``: seconds of a step; of the steps from one number up to another alone, counted from 0, where
        ``slow_steps`` has the two."""
        super().__init__()
        self.frozen = nn.Linear(48, width).requires_grad_(False)
        self.trained = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout), nn.Linear(width, CLASSES))
        self.nan_at, self.nan_rank, self.slow = nan_at, nan_rank, slow
        self.slow_steps = range(*slow_steps) if slow_steps else None
        self.hang_at = hang_at

    @classmethod
    def from_config(cls, cfg: Any) -> "TinyModel":
        return cls(cfg.width, cfg.dropout, list(cfg.nan_at), cfg.nan_rank, cfg.slow, list(cfg.slow_steps), cfg.hang_at)

    def logits(self, samples: dict[str, Any]) -> torch.Tensor:
        return self.trained(self.frozen(samples["image"].flatten(1)))

    def forward(self, samples: dict[str, Any]) -> dict[str, torch.Tensor]:
        labels = torch.tensor([int(text.split()[1]) for text in samples["text_input"]])
        loss = nn.functional.cross_entropy(self.logits(samples).float(), labels)
        step = samples["epoch"] * samples["num_iters_per_epoch"] + samples["iters"] if "epoch" in samples else -1
        if self.slow_steps is None or step in self.slow_steps:
            time.sleep(self.slow)
        if step in self.nan_at and get_rank() == self.nan_rank:
            loss = loss * float("nan")
        if 0 <= step == self.hang_at and get_rank() == self.nan_rank:
            time.sleep(1000)
        return {"loss": loss}


class TinyData(Dataset):
    """Pictures [3,4,4] of a class pattern with fresh noise from torch's generator."""

    def __init__(self, length: int, bad: int = 0, slow: float = 0.0) -> None:
        self.length, self.bad, self.slow = length, bad, slow
        self.patterns = torch.randn(CLASSES, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < self.bad:
            return {"bad": f"picture_{index}.jpg: not a picture"}
        time.sleep(self.slow)
        kind = index % CLASSES
        image = self.patterns[kind] + 0.1 * torch.randn(3, 4, 4)
        return {"image": image, "text_input": f"class {kind}", "image_id": f"{kind}-{index}", "index": index}

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        good = [sample for sample in samples if "bad" not in sample]
        bad = [sample["bad"] for sample in samples if "bad" in sample]
        batch = default_collate(good) if good else {}
        return {**batch, "bad_samples": bad} if bad else batch


class TinyStream(IterableDataset):
    """The same samples as an endless stream that can jump."""

    def __init__(self, length: int) -> None:
        self.data = TinyData(length)
        self.position = 0

    def set_position(self, samples_seen: int) -> None:
        self.position = samples_seen

    def __iter__(self):
        index = self.position
        while True:
            yield self.data[index % len(self.data)]
            index += 1


@register("builder", "tiny_data")
class TinyBuilder(BaseDatasetBuilder):
    DATASET_CONFIG_DICT = {"default": str(HERE / "tiny_data.yaml")}

    def build_datasets(self) -> dict[str, Dataset]:
        if self.config.get("stream"):
            return {"train": TinyStream(self.config.train)}
        if seconds := self.config.get("slow_start", 0.0):
            print("slow start", flush=True)
            time.sleep(seconds)
        bad, slow = self.config.get("bad", 0), self.config.get("slow_val", 0.0)
        return {"train": TinyData(self.config.train, bad), "val": TinyData(12, slow=slow), "test_unseen": TinyData(7)}


@register("builder", "tiny_more")
class TinyMoreBuilder(TinyBuilder):
    DATASET_CONFIG_DICT = {"default": str(HERE / "tiny_more.yaml")}


@register("task", "tiny_task")
class TinyTask(BaseTask):
    """Counts how many pictures are classified right; writes what every rank saw."""

    RUN_KEYS = frozenset({"sign"})

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    @classmethod
    def setup_task(cls, cfg: Any) -> "TinyTask":
        return cls(cfg.run_cfg.get("sign", 1.0))

    def valid_step(self, model: TinyModel, samples: dict[str, Any]) -> list[dict[str, Any]]:
        guesses = model.logits(samples).argmax(1)
        return [{"image_id": i, "guess": int(g)} for i, g in zip(samples["image_id"], guesses, strict=True)]

    def after_evaluation(self, val_result: list, split_name: str, epoch: Any, **kwargs: Any) -> dict[str, Any]:
        from lavis.common.registry import registry

        path = self.save_result(val_result, registry.get_path("result_dir"), f"{split_name}_epoch{epoch}")
        if get_rank():
            return {}
        rows = OmegaConf.to_container(OmegaConf.load(path))
        right = sum(row["image_id"].startswith(f"{row['guess']}-") for row in rows)
        return {"agg_metrics": self.sign * right / len(rows), "count": len(rows), "pid": os.getpid()}

"""What single tasks need beside the guide: mixins for the registered ELIP models."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lavis.common.dist_utils import is_dist_avail_and_initialized
from torch import Tensor

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.elip.model import GuidedForward, SharedTextPass, TextGuided
from lavis_evlgen.models.elip.retrieval import guided_sim_matrix
from lavis_evlgen.paths import config_path


def elip_types(model: str, *names: str) -> dict[str, str]:
    """Packaged yaml files by model type: ``elip_albef_retrieval_coco.yaml`` is ``coco`` of ``albef_retrieval``."""
    return {name: config_path("models", f"elip_{model}_{name}.yaml") for name in names}


class AnyBatchQueue:
    """Mixin: LAVIS's queue of momentum features for every batch size; its own takes divisors of the queue's size alone.

    Processes may have different numbers of pictures, or none, where some could not be read.
    """

    @torch.no_grad()
    def _dequeue_and_enqueue(self, image_feat: Tensor, text_feat: Tensor, idxs: Tensor | None = None) -> None:
        model: Any = self
        new = {"image_queue": _of_all(image_feat), "text_queue": _of_all(text_feat)}
        if idxs is not None:
            new["idx_queue"] = _of_all(idxs)
        count = min(len(new["image_queue"]), model.queue_size)
        if not count:
            return
        start = int(model.queue_ptr)
        places = (start + torch.arange(count, device=image_feat.device)) % model.queue_size
        for name, rows in new.items():
            queue = getattr(model, name)
            queue[:, places] = rows[:count].T.to(queue.dtype)
        model.queue_ptr[0] = (start + count) % model.queue_size

    def miss_batch(self) -> None:
        """What a process calls in place of `forward` for an empty batch: the others wait for its features."""
        model: Any = self
        model._momentum_update()  # the copies of all processes move alike
        nothing = model.image_queue.new_zeros(0, len(model.image_queue))
        idxs = model.idx_queue.new_zeros(0, 1) if hasattr(model, "idx_queue") else None
        self._dequeue_and_enqueue(nothing, nothing, idxs)


def _of_all(rows: Tensor) -> Tensor:
    """The rows [N_r, D] of all processes, one's after the other's."""
    if not is_dist_avail_and_initialized():
        return rows
    rows = rows.float() if rows.is_floating_point() else rows  # mixed precision where there is a batch
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    padded = rows.new_zeros(max(map(int, counts)), rows.shape[1])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


class GuidedContrast(AnyBatchQueue, SharedTextPass):
    """Mixin for models that tell the pictures of a batch from each other."""

    def forward(self, samples: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if len(samples["text_input"]) < 2:
            raise ConfigError(
                "a batch holds one picture, but matching contrasts it with others: raise run.batch_size_train so that "
                "no batch is left with one, even where pictures cannot be read"
            )
        return super().forward(samples, *args, **kwargs)


class GuidedPretraining(GuidedContrast):
    """Mixin for pretraining: reduction in training, a start from a checkpoint where one is named.

    Attributes:
        loading: what LAVIS's `load_from_pretrained` needs to know about checkpoints of pretraining.
    """

    elip_training = True
    loading: dict[str, Any] = {}

    @classmethod
    def from_config(cls, cfg: Any = None) -> Any:
        """As the parent; with ``load_pretrained: true`` the weights of ``pretrained``, which LAVIS would not load."""
        model = super().from_config(cfg)
        if cfg.get("load_pretrained", False) and cfg.get("pretrained"):
            model.load_from_pretrained(cfg.get("pretrained"), **cls.loading)
        return model


class GuidedRetrieval(GuidedContrast):
    """Mixin for retrieval: with `elip_inference` the matching head re-ranks on reduced tokens."""

    def compute_sim_matrix(self, data_loader: Any, task_cfg: Any) -> tuple[np.ndarray, np.ndarray]:
        if not self.elip_inference:
            return super().compute_sim_matrix(data_loader, task_cfg)  # type: ignore[misc]
        return guided_sim_matrix(self, data_loader, task_cfg.k_test)


class GuidedQuestions(TextGuided):
    """Mixin for VQA: the question guides, in training and where answers are predicted."""

    def forward_encoder(self, samples: dict[str, Any]) -> Any:
        with self.guided(samples["text_input"]):
            return super().forward_encoder(samples)  # type: ignore[misc]


class GuidedPairs(GuidedForward):
    """Mixin for NLVR, whose forward passes both pictures of a sentence to the ViT, all first ones before all second."""

    def text_cls(self, texts: list[str]) -> Tensor:
        return super().text_cls(texts).repeat(2, 1)

"""Does the model look at the picture? Held-out loss with the right pictures against that with shuffled ones.

A model that ignores its pictures can have a falling loss and fluent captions; then both losses are equal.
"""

import logging
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from lavis_evlgen.runners import rng
from lavis_evlgen.runners.distributed import summed
from lavis_evlgen.runners.evaluation import EvalLoader
from lavis_evlgen.runners.samples import to_device
from lavis_evlgen.runners.step import autocast

PICTURES = ("image", "vision_features", "video")
LEAST_GAP = 0.05  # nats a token
PATIENCE = 2


def select(batch: dict[str, Any], indices: list[int]) -> dict[str, Any]:
    """The given samples of a collated batch."""
    return {
        key: value[indices] if isinstance(value, Tensor) else [value[i] for i in indices]
        for key, value in batch.items()
        if isinstance(value, Tensor | list) and key != "bad_samples"
    }


def right_and_shuffled(batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The batch and a copy whose pictures are rolled by one, without the samples that would get their own picture.

    None when no sample is left.
    """
    ids = batch["image_id"] if not isinstance(batch["image_id"], Tensor) else batch["image_id"].tolist()
    others = [index for index in range(len(ids)) if ids[index] != ids[index - 1]]
    if not others:
        return None
    right = select(batch, others)
    pictures = select({key: batch[key] for key in PICTURES if key in batch}, [index - 1 for index in others])
    return right, {**right, **pictures}


class TrainingHealth:
    """Measures the gap between both losses and warns while it stays near zero."""

    def __init__(self, loader: EvalLoader, batches: int, device: torch.device, precision: str, warmup: int) -> None:
        """Keeps the first ``batches`` batches of this rank's ``loader``; warns from step ``warmup`` on."""
        pairs = [right_and_shuffled(batch) for batch in islice(loader, batches) if "text_input" in batch]
        self.pairs = [pair for pair in pairs if pair is not None]
        self.device, self.precision, self.warmup = device, precision, warmup
        self.without_gap = 0

    def __call__(self, model: nn.Module, loss_of: Callable[..., Tensor], iters: int) -> dict[str, float] | None:
        """held_out_loss, shuffled_loss and gap over all ranks (nats a token); None without captioned batches."""
        sums = [0.0, 0.0, 0.0]
        was_training = model.training
        model.eval()
        with rng.preserved(), torch.no_grad(), autocast(self.device, self.precision):
            for right, shuffled in self.pairs:
                count = len(right["image_id"])
                sums[0] += count * float(loss_of(model=model, samples=to_device(right, self.device)))
                sums[1] += count * float(loss_of(model=model, samples=to_device(shuffled, self.device)))
                sums[2] += count
        model.train(was_training)
        held_out, shuffled_sum, total = summed(sums, self.device)
        if not total:
            logging.warning(
                "run.health_freq: the first split of run.valid_splits gives no captions (text_input) or only one "
                "picture a batch, so the loss with shuffled pictures cannot be measured."
            )
            return None
        result = {"held_out_loss": held_out / total, "shuffled_loss": shuffled_sum / total}
        result["gap"] = result["shuffled_loss"] - result["held_out_loss"]
        self._judge(result["gap"], iters)
        return result

    def _judge(self, gap: float, iters: int) -> None:
        self.without_gap = self.without_gap + 1 if gap < LEAST_GAP and iters >= self.warmup else 0
        if self.without_gap >= PATIENCE:
            logging.warning(
                "step %d: held-out loss is the same with wrong pictures (gap %.3f nats, %d checks in a row): the model "
                "writes its captions without looking. Usual reasons: a learning rate that is too high for the "
                "connector, pictures that do not belong to their captions, or too few steps so far.",
                iters, gap, self.without_gap,
            )  # fmt: skip

"""Does the model look at the picture? Held-out loss with the right pictures against that with shuffled ones.

A model that ignores its pictures can have a falling loss and fluent captions; then both losses are equal. How much the
soft prompts differ from picture to picture tells whether the language model could look at all.
"""

import logging
import operator
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_evlgen.runners import rng
from lavis_evlgen.runners.distributed import summed
from lavis_evlgen.runners.evaluation import EvalLoader
from lavis_evlgen.runners.samples import to_device
from lavis_evlgen.runners.sharding import as_many_everywhere
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


def prompt_differences(prompts: Tensor) -> tuple[float, int]:
    """How much soft prompts [B, L', D_l] differ: a sum over ordered pairs of pictures, and how many pairs there are.

    The difference of a pair is 1 minus the cosine similarity of their tokens at the same place, averaged over the
    places: 0 for equal prompts, 1 for unrelated ones. Nothing is subtracted before, since the language model too sees
    the tokens whole, and by direction alone: its norms take their length away.
    """
    directions = F.normalize(prompts.float(), dim=-1)
    count = len(directions)
    # of unit vectors the squared distance is twice that difference; zeros, all alike, are no distance apart
    spread = (directions - directions.mean(dim=0)).square().sum()
    return count * float(spread) / directions.shape[1], count * (count - 1)


class TrainingHealth:
    """Measures the gap between both losses, and the diversity of the soft prompts."""

    def __init__(self, loader: EvalLoader, batches: int, device: torch.device, precision: str) -> None:
        """Keeps the first ``batches`` batches of this rank's ``loader``."""
        pairs = [right_and_shuffled(batch) for batch in islice(loader, batches) if "text_input" in batch]
        own = [pair for pair in pairs if pair is not None]
        self.pairs = as_many_everywhere(own) if loader.together else [(pair, True) for pair in own]
        self.device, self.precision = device, precision

    def __call__(self, model: Any, loss_of: Callable[..., Tensor]) -> dict[str, float] | None:
        """held_out_loss, shuffled_loss and gap (nats a token), and, of models with a ``soft_prompt``,
        prompt_diversity (see :func:`prompt_differences`), over all ranks; None without captioned batches.
        """
        sums = [0.0] * 5
        was_training = model.training
        model.eval()
        with rng.preserved(), torch.no_grad(), autocast(self.device, self.precision):
            for (right, shuffled), own in self.pairs:
                count = len(right["image_id"]) if own else 0
                right = to_device(right, self.device)
                if hasattr(model, "soft_prompt"):
                    right["soft_prompt"] = model.soft_prompt(right)  # which the loss takes up
                    if own:
                        sums[3:] = map(operator.add, sums[3:], prompt_differences(right["soft_prompt"]))
                sums[0] += count * float(loss_of(model=model, samples=right))
                sums[1] += count * float(loss_of(model=model, samples=to_device(shuffled, self.device)))
                sums[2] += count
        model.train(was_training)
        held_out, shuffled_sum, total, differences, compared = summed(sums, self.device)
        if not total:
            logging.warning(
                "run.health_freq: the first split of run.valid_splits gives no captions (text_input) or only one "
                "picture a batch, so the loss with shuffled pictures cannot be measured."
            )
            return None
        result = {"held_out_loss": held_out / total, "shuffled_loss": shuffled_sum / total}
        result["gap"] = result["shuffled_loss"] - result["held_out_loss"]
        if compared:
            result["prompt_diversity"] = differences / compared
        return result

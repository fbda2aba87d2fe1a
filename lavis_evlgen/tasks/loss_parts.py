"""Losses that are sums of named parts (BLIP-2's first stage, ALBEF, BLIP): the parts go to the log too."""

from typing import Any

import torch
from lavis.tasks.image_text_pretrain import ImageTextPretrainTask

from lavis_evlgen.registration_tools import register


class LossParts:
    """Mix-in for tasks: remembers the entries ``loss_*`` of what the model gives beside its ``loss``."""

    _parts: list[dict[str, float]]

    def train_step(self, model: torch.nn.Module, samples: dict[str, Any]) -> torch.Tensor:
        """The model's loss."""
        output = model(samples)
        parts = {name: float(value) for name, value in output.items() if name.startswith("loss_")}
        if parts and model.training:
            self._parts = [*getattr(self, "_parts", []), parts]
        return output["loss"]

    def train_metrics(self) -> dict[str, float]:
        """Means of the parts over this rank's batches since the last call; empty for a loss without parts."""
        steps, self._parts = getattr(self, "_parts", []), []
        return {name: sum(parts[name] for parts in steps) / len(steps) for name in (steps[0] if steps else ())}


@register("task", "evlgen_pretrain", "image_text_pretrain")
class PretrainingTask(LossParts, ImageTextPretrainTask):
    """LAVIS's pretraining without any evaluation, with the parts of the loss in the log; it takes that task's place."""

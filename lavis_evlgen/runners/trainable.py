"""What of a model is trained: its tensors for checkpoints, its optimiser groups, and a wrapper for empty batches."""

from typing import Any

import torch
from torch import Tensor, nn

from lavis_evlgen.errors import WeightsError

LENT = "lent"
"""In a batch without samples: another process's batch, to be passed through the model and forgotten."""


def trainable_state(model: Any) -> dict[str, Tensor]:
    """Tensors that a checkpoint must hold: the model's own choice, or all but the frozen parameters.

    Models with momentum copies (ALBEF, BLIP pre-training) move tensors that need no gradient: all is kept.
    """
    if hasattr(model, "trainable_state_dict"):
        return model.trainable_state_dict()
    state = model.state_dict()
    if hasattr(model, "model_pairs"):
        return state
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: tensor for name, tensor in state.items() if name not in frozen}


def load_trainable_state(model: Any, state: dict[str, Tensor], source: str) -> None:
    """Put back :func:`trainable_state`; raises WeightsError naming ``source`` when the tensors do not match."""
    if hasattr(model, "load_trainable_state_dict"):
        model.load_trainable_state_dict(state)
        return
    wanted = trainable_state(model)
    wrong = [name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape]
    problems = {
        "missing": sorted(wanted.keys() - state.keys()),
        "not of this model": sorted(state.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}" for name in sorted(wrong)
        ],
    }
    found = [f"{what}: {', '.join(names[:3])} ({len(names)})" for what, names in problems.items() if names]
    if found:
        raise WeightsError(f"{source} belongs to another model than the configured one; {'; '.join(found)}")
    model.load_state_dict(state, strict=False)


def optimizer_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: the model's own, or LAVIS's rule (no decay for biases and normalisation layers)."""
    if hasattr(model, "optimizer_groups"):
        return model.optimizer_groups(weight_decay)
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            is_plain = p.ndim < 2 or any(part in name for part in ("bias", "ln", "bn"))
            (plain if is_plain else decayed).append(p)
    return [
        {"params": decayed, "weight_decay": weight_decay, "lr_scale": 1.0},
        {"params": plain, "weight_decay": 0.0, "lr_scale": 1.0},
    ]


class SkipsEmptyBatches(nn.Module):
    """Runs the model; a batch without any good sample gives a zero loss over all trainable parameters.

    With several processes a rank must take part in every reduction of gradients, also when its batch is empty.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, samples: dict[str, Any]) -> dict[str, Tensor]:
        if batch_size(samples):
            return self.model(samples)
        if hasattr(self.model, "miss_batch"):  # models whose processes speak with each other in `forward`
            self.model.miss_batch()
        parts = [p.sum() * 0.0 for p in self.model.parameters() if p.requires_grad]
        return {"loss": torch.stack([part.float() for part in parts]).sum()}


def batch_size(samples: dict[str, Any]) -> int:
    """Number of samples in a collated batch; 0 when all of them were bad."""
    for key, value in samples.items():
        if isinstance(value, Tensor | list) and key != "bad_samples":
            return len(value)
    return 0

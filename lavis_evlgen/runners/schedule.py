"""Learning rate of every optimisation step: linear warm-up, then cosine, constant or step decay over the whole run.

LAVIS warms up in its first inner epoch only and moves the cosine once an inner epoch; here both move every step.
"""

import math
from dataclasses import dataclass

from torch.optim import Optimizer

from lavis_evlgen.errors import ConfigError, nearest

SCHEDULES = {
    "linear_warmup_cosine_lr": "cosine",
    "linear_warmup_step_lr": "step",
    "linear_warmup_constant_lr": "constant",
    "constant_lr": "constant",
}


@dataclass(frozen=True)
class Schedule:
    """``schedule(step)`` is the learning rate after ``step`` finished optimisation steps.

    It rises linearly from ``warmup_lr`` to ``init_lr`` over ``warmup_steps``; then ``cosine`` falls to ``min_lr`` at
    ``max_iters``, ``step`` multiplies by ``decay_rate`` every ``decay_every`` steps (never below ``min_lr``), and
    ``constant`` stays. A negative ``warmup_lr`` means ``init_lr``, as in LAVIS.
    """

    name: str
    max_iters: int
    init_lr: float
    min_lr: float = 0.0
    warmup_lr: float = 0.0
    warmup_steps: int = 0
    decay_rate: float = 1.0
    decay_every: int = 1

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ConfigError(f"run.lr_sched: unknown schedule {self.name!r}{nearest(self.name, SCHEDULES)}")

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            start = self.init_lr if self.warmup_lr < 0 else self.warmup_lr
            return start + (self.init_lr - start) * step / self.warmup_steps
        shape = SCHEDULES[self.name]
        if shape == "cosine":
            progress = (step - self.warmup_steps) / max(1, self.max_iters - self.warmup_steps)
            return self.min_lr + 0.5 * (self.init_lr - self.min_lr) * (1 + math.cos(math.pi * min(1.0, progress)))
        if shape == "step":
            return max(self.min_lr, self.init_lr * self.decay_rate ** (step // self.decay_every))
        return self.init_lr

    def apply(self, optimizer: Optimizer, step: int) -> float:
        """Set the rate of every parameter group, times the group's ``lr_scale``; returns the unscaled rate."""
        lr = self(step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        return lr

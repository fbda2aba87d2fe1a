"""One optimisation step: forward and backward over the accumulated batches, clipping, and the guard against NaN."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lavis_evlgen.runners.activity import ACTIVITY
from lavis_evlgen.runners.distributed import summed
from lavis_evlgen.runners.samples import to_device
from lavis_evlgen.runners.trainable import LENT, batch_size

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision on CPU or GPU; nothing for fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


@dataclass(frozen=True)
class StepResult:
    """What one step did, over all ranks.

    loss: mean over batches and ranks, NaN when there was none. grad_norm: before clipping. skipped: the weights were
    left as they are. samples, bad: numbers of samples used and of unreadable ones. stop: some rank was told to stop.
    not_finite: it counts as one with a NaN or infinite loss or gradient; own_loss: the mean over this rank's batches.
    """

    loss: float
    grad_norm: float
    skipped: bool
    samples: int
    bad: int
    stop: bool
    not_finite: bool
    own_loss: float


class TrainStep:
    """Callable that trains on a list of batches (gradient accumulation) and reports a :class:`StepResult`."""

    def __init__(
        self,
        model: nn.Module,
        loss_of: Callable[..., Tensor],
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        precision: str,
        max_grad_norm: float = 0.0,
    ) -> None:
        """``loss_of(model=, samples=)`` is the task's train_step; ``model`` may be wrapped for several processes."""
        self.model = model
        self.distributed = isinstance(model, DistributedDataParallel)
        self.loss_of = loss_of
        self.optimizer = optimizer
        self.device = device
        self.precision = precision
        self.max_grad_norm = max_grad_norm or float("inf")
        self.nan_steps = 0
        self.nan_steps_in_a_row = 0
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16" and device.type == "cuda")

    def __call__(self, batches: list[dict[str, Any]], extra: dict[str, Any], stop: bool = False) -> StepResult:
        """``extra`` is added to every batch (LAVIS's models ask for epoch and iters); ``stop`` is told to all ranks."""
        found = [self._backward(b, extra, i + 1 == len(batches), len(batches)) for i, b in enumerate(batches)]
        ACTIVITY.enter("updating the weights", short=True)
        losses = [loss for loss in found if loss is not None]
        norm = 0.0
        if losses or self.distributed:
            self.scaler.unscale_(self.optimizer)
            norm = float(nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm))
        total = float(torch.stack(losses).sum()) if losses else 0.0
        samples, bad = sum(map(batch_size, batches)), sum(len(b.get("bad_samples", ())) for b in batches)
        broken = not (math.isfinite(total) and math.isfinite(norm))
        local = [total, len(losses), samples, bad, broken, stop]
        total, used, good, unread, breaks, stops = summed([float(value) for value in local], self.device)
        not_finite = False
        own_loss = local[0] / max(1, len(losses))
        if used:
            not_finite = self._update(broken=breaks > 0, loss_is_finite=math.isfinite(total))
        else:
            if self.distributed:  # the scaler has looked at the zeros that were exchanged
                self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        return StepResult(
            loss=total / used if used else float("nan"),
            grad_norm=norm,
            skipped=breaks > 0 or used == 0,
            samples=int(good),
            bad=int(unread),
            stop=stops > 0,
            not_finite=not_finite,
            own_loss=own_loss,
        )

    def _backward(self, batch: dict[str, Any], extra: dict[str, Any], last: bool, parts: int) -> Tensor | None:
        """Add the batch's gradient; its detached loss, or None for a batch without samples."""
        empty = batch_size(batch) == 0
        if empty and not self.distributed:
            return None
        good = batch.get(LENT, {}) if empty else {k: v for k, v in batch.items() if k != "bad_samples"}
        # gradients travel between processes once a step, with the last batch
        with self.model.no_sync() if isinstance(self.model, DistributedDataParallel) and not last else nullcontext():
            ACTIVITY.enter("forward pass", short=True)
            with autocast(self.device, self.precision):
                loss = self.loss_of(model=self.model, samples=to_device(good | extra, self.device))
            if empty:  # a pass that others wait for
                loss = loss * 0.0
            ACTIVITY.enter("backward pass", short=True)
            self.scaler.scale(loss / parts).backward()
        return None if empty else loss.detach().float()

    def _update(self, broken: bool, loss_is_finite: bool) -> bool:
        """Move the weights unless some rank met NaN or infinity; every rank decides the same. Whether that counts."""
        if not broken:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if not broken:
            self.nan_steps_in_a_row = 0
            return False
        # a scaler that is still looking for its scale overflows without anything being wrong
        if self.scaler.is_enabled() and loss_is_finite and self.scaler.get_scale() > 1:
            return False
        self.nan_steps += 1
        self.nan_steps_in_a_row += 1
        return True

"""Tensors that have shapes and dtypes but no values, so that real models run in a moment, without weights or memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode


@contextmanager
def empty_modules() -> Iterator[None]:
    """Modules made within it lie on the meta device."""
    with torch.device("meta"), _NoValues():
        yield


@contextmanager
def shapes_only() -> Iterator[None]:
    """Tensors made within it are fake: torch's meta tensors that say they lie on a CPU, which autocast asks for.

    Attention runs as the fused kernel of a GPU, which does not keep its scores; torch would choose one that does here.
    """
    # fake tensors register a GPU; autograd must have started before, or it starts a thread for it and no process could
    # be forked any more
    torch.zeros((), requires_grad=True).backward()
    with FakeTensorMode(allow_non_fake_inputs=True), _NoValues():
        yield


def make_fake(model: nn.Module) -> None:
    """Put fake tensors in the place of the parameters and buffers of a model on meta; tied ones stay tied."""
    made: dict[Tensor, Tensor] = {}
    for module in model.modules():
        stores: tuple[Any, Any] = (module._parameters, module._buffers)
        for store in stores:
            for name, tensor in store.items():
                if tensor is None:
                    continue
                if tensor not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    made[tensor] = nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake
                store[name] = made[tensor]


class _NoValues(TorchFunctionMode):
    """Answers what code asks of a tensor's value: 0 for a number, which only sets a scale, a drop rate or which sample
    is a negative; True for a truth, which only asks whether a mask hides nothing. And does two things as a GPU does."""

    _ANSWERS: dict[Any, Any] = {Tensor.item: 0, Tensor.__int__: 0, Tensor.__float__: 0.0, Tensor.__bool__: True}
    # a CPU's autocast leaves them in 16 bits
    _IN_FP32 = (F.layer_norm, F.softmax, torch.softmax, Tensor.softmax)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._ANSWERS:
            return self._ANSWERS[func]
        if func is F.scaled_dot_product_attention:
            return _fused_attention(*args, **(kwargs or {}))
        if func in self._IN_FP32 and torch.is_autocast_enabled("cpu"):
            args = [each.float() if isinstance(each, Tensor) else each for each in args]
        return func(*args, **(kwargs or {}))


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """PyTorch's memory-efficient attention, which a GPU takes where there is a mask or dropout; [B, heads, N, D]."""
    if enable_gqa:
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    return attend(query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale)[0]

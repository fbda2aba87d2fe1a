"""Who does the multiplications: multiply-accumulates by part of a model, forward and backward, as they happen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# linear layers and the patches' convolution, by torch's names; all else multiplies activations with activations
_LINEAR = ("aten.mm", "aten.addmm", "aten.convolution")
# a CPU's fused attention is missing there, and does what a GPU's does
_aten = torch.ops.aten
_FORMULAS = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[_aten._scaled_dot_product_flash_attention],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
}
OTHER = "other"
_MARK = "_ledger_knows"


@dataclass
class Macs:
    """Multiply-accumulates.

    Attributes:
        forward, backward: all of them.
        linear: those of the forward pass in linear layers (and the convolution that embeds patches).
    """

    forward: float = 0.0
    backward: float = 0.0
    linear: float = 0.0


class Ledger(TorchDispatchMode):
    """While active, books what torch's own formulas (`torch.utils.flop_counter`) say of every operation to a part.

    In the backward pass the tensors' hooks say whose turn it is: that of the part which a tensor came out of.

    Args:
        parts: name and module; what lies in a module counts for it unless it is a part itself. Besides calls of
            modules a method `reduce` counts for its module, as connectors are entered by it.

    Attributes:
        macs: by part; "other" is for what belongs to none.
        calls: by part, the forward ones of every time that it was entered.
    """

    def __init__(self, parts: dict[str, nn.Module]):
        super().__init__()
        self.macs = {name: Macs() for name in [*parts, OTHER]}
        self.calls: dict[str, list[Macs]] = {name: [] for name in self.macs}
        self._owner = owners(parts)
        self._stack = [OTHER]
        self._is_backward = False

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Active, and told by the modules when they are entered and left."""
        handles = []
        reducing: list[Any] = [module for module in self._owner if hasattr(module, "reduce")]
        for module, name in self._owner.items():
            handles.append(module.register_forward_pre_hook(partial(self._enter, name)))
            handles.append(module.register_forward_hook(partial(self._leave, name)))
        for module in reducing:
            module.reduce = partial(self._reduce, self._owner[module], module.reduce)
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()
            for module in reducing:
                del module.reduce  # its class's own remains

    def backward(self, loss: Tensor) -> None:
        """The backward pass from a loss, booked as such."""
        self._is_backward = True
        # a tensor's own backward leaves torch's function modes, without which checkpointed blocks would run otherwise
        torch.autograd.backward(get_gradient_edge(loss), torch.ones_like(loss))
        self._is_backward = False
        self._stack = [OTHER]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = _FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self._book(formula(*args, **kwargs, out_val=out) / 2, str(func.overloadpacket) in _LINEAR)
        return out

    def _book(self, macs: float, linear: bool) -> None:
        name = self._stack[-1]
        if self._is_backward:
            self.macs[name].backward += macs
            return
        for account in (self.macs[name], *self.calls[name][-1:]):
            account.forward += macs
            account.linear += macs * linear

    def _reduce(self, name: str, function: Any, *args: Any) -> Any:
        self._enter(name, None, args)
        outputs = function(*args)
        self._leave(name, None, args, outputs)
        return outputs

    def _enter(self, name: str, _module: Any, inputs: Any) -> None:
        outer = self._stack[-1]
        if outer != name and not self._is_backward:
            self.calls[name].append(Macs())
            if outer != OTHER:
                self._in_backward(outer, inputs)
        self._stack.append(name)

    def _leave(self, name: str, _module: Any, _inputs: Any, outputs: Any) -> None:
        self._stack.pop()
        if self._stack[-1] != name and not self._is_backward:
            self._in_backward(name, outputs)

    def _in_backward(self, name: str, tree: Any) -> None:
        for tensor in _with_gradient(tree):
            if not hasattr(tensor, _MARK):  # of parts that hand on the same tensor the first one made it
                setattr(tensor, _MARK, True)
                tensor.register_hook(partial(self._turn, name))

    def _turn(self, name: str, _gradient: Tensor) -> None:
        self._stack = [name]


def owners(parts: dict[str, nn.Module]) -> dict[nn.Module, str]:
    """For every module in the parts the name of the innermost part that it lies in."""
    modules = {name: list(part.modules()) for name, part in parts.items()}
    outermost_first = sorted(modules, key=lambda name: -len(modules[name]))
    return {module: name for name in outermost_first for module in modules[name]}


def _with_gradient(tree: Any) -> Iterable[Tensor]:
    if isinstance(tree, Tensor):
        if tree.requires_grad:
            yield tree
    elif isinstance(tree, dict):
        yield from _with_gradient(list(tree.values()))
    elif isinstance(tree, list | tuple):
        for each in tree:
            yield from _with_gradient(each)

"""Multiply-accumulates of layers small enough to count by hand."""

import pytest
import torch
from torch import nn

from lavis_evlgen.cost.ledger import Ledger, Macs, owners


class Attention(nn.Module):
    """Values of a trained layer, mixed by their own products: [B, N, D] -> [B, N, D]."""

    def __init__(self, width: int):
        super().__init__()
        self.values = nn.Linear(width, width)

    def reduce(self, x):
        x = self.values(x)
        return x @ x.transpose(1, 2) @ x


@pytest.fixture
def path():
    """A frozen layer 4 -> 6, attention of width 6 entered by `reduce`, a frozen layer 6 -> 7."""
    parts = {"first": nn.Linear(4, 6), "connector": Attention(6), "last": nn.Linear(6, 7)}
    for name in ("first", "last"):
        parts[name].requires_grad_(False)
    return parts


def run(parts):
    """[3, 5, 4] through the path and back."""
    ledger = Ledger(parts)
    with ledger.counting():
        x = parts["connector"].reduce(parts["first"](torch.randn(3, 5, 4)))
        ledger.backward((parts["last"](x) @ torch.randn(7, 2)).sum())
    return ledger


def test_every_product_is_booked_to_its_part(path):
    ledger = run(path)
    tokens, linear, products = 3 * 5, 3 * 5 * 6 * 6, 3 * 5 * 5 * 6
    assert ledger.macs["first"] == Macs(forward=tokens * 4 * 6, backward=0, linear=tokens * 4 * 6)
    # its input wants no gradient; each of the two products has two operands that do
    assert ledger.macs["connector"] == Macs(linear + 2 * products, linear + 4 * products, linear)
    assert ledger.macs["last"] == Macs(tokens * 6 * 7, tokens * 6 * 7, tokens * 6 * 7)
    # the last product is of no part; its own operand is no parameter
    assert ledger.macs["other"] == Macs(tokens * 7 * 2, tokens * 7 * 2, tokens * 7 * 2)


def test_each_entrance_counts_for_itself(path):
    ledger = Ledger(path)
    with ledger.counting():
        for batch in (1, 2):
            path["connector"].reduce(torch.randn(batch, 5, 6))
    assert [call.linear for call in ledger.calls["connector"]] == [5 * 36, 2 * 5 * 36]
    assert ledger.macs["connector"].forward == sum(call.forward for call in ledger.calls["connector"])


class Block(nn.Module):
    """A frozen layer, a trained one that belongs to another part, a frozen layer; as the contextualizer in a ViT."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.before, self.after = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.requires_grad_(False)
        self.inner = [inner]  # no child

    def forward(self, x):
        return self.after(self.inner[0](self.before(x)))


def test_a_part_within_a_call_of_another_keeps_its_own_account_both_ways():
    inner = nn.Linear(4, 4, bias=False)
    parts = {"outer": nn.Sequential(Block(inner), Block(inner)), "inner": inner}
    ledger = Ledger(parts)
    with ledger.counting():
        ledger.backward(parts["outer"](torch.randn(2, 4)).sum())
    layer = 2 * 4 * 4
    assert ledger.macs["outer"] == Macs(4 * layer, 3 * layer, 4 * layer)  # nothing asks for the gradient of the first
    assert ledger.macs["inner"] == Macs(2 * layer, 3 * layer, 2 * layer)  # two of weights, one of an input


def test_of_parts_that_hand_on_one_tensor_the_one_that_made_it_gets_its_backward():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return self.inner(x)

    outer = Outer()
    ledger = Ledger({"outer": outer, "inner": outer.inner})
    with ledger.counting():
        ledger.backward(outer(torch.randn(2, 4)).sum())
    assert (ledger.macs["outer"].backward, ledger.macs["inner"].backward) == (0, 32)


def test_nothing_of_the_ledger_stays_in_the_modules(path):
    run(path)
    assert "reduce" not in vars(path["connector"])
    assert all(not m._forward_hooks and not m._forward_pre_hooks for part in path.values() for m in part.modules())


def test_the_innermost_part_owns_a_module():
    outer = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert owners({"inner": outer[0], "outer": outer}) == {outer[0]: "inner", outer[1]: "outer", outer: "outer"}

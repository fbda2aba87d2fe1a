"""What tensors without values answer, and that nothing of them stays behind."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lavis_evlgen.cost.shapes import empty_modules, make_fake, shapes_only


def test_modules_are_empty_and_constructors_get_their_numbers():
    with empty_modules():
        layer = nn.Linear(10**6, 10**6)  # 4 TB
        rates = [rate.item() for rate in torch.linspace(0, 0.5, 3)]
    assert layer.weight.is_meta and rates == [0, 0, 0]
    assert not nn.Linear(2, 2).weight.is_meta


def test_tied_and_frozen_parameters_stay_so():
    with empty_modules():
        model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False), nn.BatchNorm1d(5))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    model.bfloat16()
    with shapes_only():
        make_fake(model)
        assert model[0].weight is model[1].weight
        assert [p.requires_grad for p in model.parameters()] == [True, False, False]
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert model(torch.zeros(4, dtype=torch.long)).shape == (4, 5)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_keeps_no_scores(masked):
    """Four heads of queries, two of keys and values: for the backward pass no [8, 8] but the mask itself."""
    saved = []
    with shapes_only(), torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        query = torch.empty(2, 4, 8, 16, requires_grad=True)
        key = torch.empty(2, 2, 8, 16, requires_grad=True)
        mask = torch.zeros(8, 8) if masked else None
        out = F.scaled_dot_product_attention(query, key, key, attn_mask=mask, dropout_p=0.1, enable_gqa=True)
        assert out.shape == query.shape
    assert [tuple(shape) for shape in saved].count((2, 4, 8, 8)) == int(masked)


def test_half_precision_is_a_gpus():
    with shapes_only():
        layer, norm, x = nn.Linear(4, 4), nn.LayerNorm(4, dtype=torch.bfloat16), torch.empty(2, 4)
        with torch.autocast("cpu", torch.bfloat16):
            half = layer(x)
            assert half.dtype is torch.bfloat16
            assert norm(half).dtype is half.softmax(dim=-1).dtype is F.softmax(half, dim=-1).dtype is torch.float32
        assert F.softmax(half, dim=-1).dtype is torch.bfloat16


@pytest.mark.slow
def test_processes_can_be_forked_afterwards():
    code = """
import os, torch
from lavis_evlgen.cost.shapes import shapes_only
with shapes_only():
    torch.empty(3, requires_grad=True).sum().backward()
if os.fork() == 0:
    torch.ones(3, requires_grad=True).sum().backward()
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0

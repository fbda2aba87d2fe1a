"""Reductions as data: mass, composition, gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_evlgen.token_reduction import Reduction, bipartite_soft_matching

shapes = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 8), st.integers(0, 50), st.integers(0, 10_000))


def random_metric(shape):
    batch, tokens, width, r, seed = shape
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(seed)), r


@given(shapes, st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_matching_keeps_what_it_must(shape, protect_cls, by_size):
    metric, r = random_metric(shape)
    batch, tokens = metric.shape[:2]
    sizes = torch.rand(batch, tokens) + 0.5 if by_size else None
    reduction = bipartite_soft_matching(metric, r, protect_cls=protect_cls, sizes=sizes)

    assert reduction.num_out == tokens - min(r, (tokens - protect_cls) // 2)
    # every output token is the target of some input token, so the source map partitions the inputs
    assert all(set(row.tolist()) == set(range(reduction.num_out)) for row in reduction.target)
    # the weights of one output token sum to one: a constant stays that constant
    ones = torch.ones(batch, tokens, 1)
    torch.testing.assert_close(reduction.apply(ones), torch.ones(batch, reduction.num_out, 1))
    assert torch.equal(reduction.sizes().sum(1), torch.full((batch,), float(tokens)))
    if protect_cls:
        assert (reduction.target[:, 0] == 0).all() and (reduction.sizes()[:, 0] == 1).all()
    if by_size:
        # size-weighted merging conserves the mass of the tokens: sum of size * value
        x = torch.randn(batch, tokens, 3)
        before = (sizes.unsqueeze(-1) * x).sum(1)
        after = (reduction.sizes(sizes).unsqueeze(-1) * reduction.apply(x)).sum(1)
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


@given(shapes, st.lists(st.integers(0, 12), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_composition_equals_one_after_another(shape, rs):
    metric, _ = random_metric(shape)
    x = torch.randn(*metric.shape[:2], 4)
    merged, composed = x, Reduction.identity(*x.shape[:2])
    for r in rs:
        step = bipartite_soft_matching(merged, r)
        merged = step.apply(merged)
        composed = composed.then(step)
    torch.testing.assert_close(composed.apply(x), merged)
    assert all(set(row.tolist()) == set(range(merged.shape[1])) for row in composed.target)
    assert torch.equal(composed.sizes().sum(1), torch.full((x.shape[0],), float(x.shape[1])))


def explicit_merge(x, metric, r):
    """The rule, token by token, as a reader would do it on paper."""
    rows = []
    for tokens, keys in zip(x, metric, strict=True):
        keys = keys / keys.norm(dim=-1, keepdim=True)
        a, b = list(range(0, len(tokens), 2)), list(range(1, len(tokens), 2))
        best = {i: max(b, key=lambda j, i=i: float(keys[i] @ keys[j])) for i in a if i != 0}
        ranked = sorted(best, key=lambda i: -float(keys[i] @ keys[best[i]]))
        merged = set(ranked[:r])
        out = [tokens[i] for i in a if i not in merged]
        for j in b:
            group = [tokens[j]] + [tokens[i] for i in merged if best[i] == j]
            out.append(torch.stack(group).mean(0))
        rows.append(torch.stack(out))
    return torch.stack(rows)


def test_values_and_gradients_equal_an_explicit_loop():
    torch.manual_seed(0)
    x, metric = torch.randn(2, 13, 5, dtype=torch.double), torch.randn(2, 13, 4, dtype=torch.double)
    upstream = torch.randn(2, 9, 5, dtype=torch.double)
    grads = []
    for merge in (
        lambda x: bipartite_soft_matching(metric, 4).apply(x),
        lambda x: explicit_merge(x, metric, 4),
    ):
        leaf = x.clone().requires_grad_()
        out = merge(leaf)
        (out * upstream).sum().backward()
        grads.append((out.detach(), leaf.grad))
    torch.testing.assert_close(grads[0][0], grads[1][0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(grads[0][1], grads[1][1], rtol=1e-6, atol=1e-7)


def test_worked_example():
    # A = tokens 0 (CLS), 2, 4; B = tokens 1, 3. Token 4 is parallel to token 3, token 2 only near token 1.
    metric = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.5, 1.0], [1.0, -1.0], [2.0, -2.0]]])
    reduction = bipartite_soft_matching(metric, 1)
    assert reduction.target.tolist() == [[0, 2, 1, 3, 3]]
    assert reduction.weight.tolist() == [[1.0, 1.0, 1.0, 0.5, 0.5]]
    by_size = bipartite_soft_matching(metric, 1, sizes=torch.tensor([[1.0, 1.0, 1.0, 1.0, 3.0]]))
    assert by_size.weight.tolist() == [[1.0, 1.0, 1.0, 0.25, 0.75]]


def test_no_gradient_through_the_choice():
    metric = torch.randn(1, 9, 4, requires_grad=True)
    assert not bipartite_soft_matching(metric, 3).weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_change_what_merges(dtype):
    """Tokens as alike as a ViT's: in bf16 their 16,512 similarities have some thirty values."""
    torch.manual_seed(0)
    metric = (2 * torch.randn(2, 1, 64) + 0.7 * torch.randn(2, 257, 64)).to(dtype)
    expected = bipartite_soft_matching(metric, 19)
    with torch.autocast("cpu", dtype):
        found = bipartite_soft_matching(metric, 19)
    assert torch.equal(found.target, expected.target) and torch.equal(found.weight, expected.weight)

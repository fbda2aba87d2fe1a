"""Text-guided reductions: a worked example, what they keep, composition, gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.token_reduction import (
    bipartite_soft_matching,
    kept_counts,
    text_guided_counts,
    text_guided_reduction,
)


def test_worked_example():
    # CLS and five patches a … e. The best two are b and e; a, c, d score 0.1, 0.2, 0.1, together 0.4.
    scores = torch.tensor([[0.1, 0.25, 0.2, 0.1, 0.3]])
    reduction = text_guided_reduction(scores, keep=2)
    assert reduction.target.tolist() == [[0, 3, 1, 3, 3, 2]]
    assert reduction.num_out == 4
    tokens = torch.tensor([[[9.0, 9.0], [4.0, 0.0], [1.0, 1.0], [0.0, 8.0], [4.0, 4.0], [2.0, 2.0]]])
    # the fused token: (0.1 a + 0.2 c + 0.1 d) / 0.4 = a/4 + c/2 + d/4 = (2, 5)
    expected = torch.tensor([[[9.0, 9.0], [1.0, 1.0], [2.0, 2.0], [2.0, 5.0]]])
    torch.testing.assert_close(reduction.apply(tokens), expected, rtol=1e-5, atol=0)
    # the total of the scores is enlarged by 1e-6
    assert reduction.weight[0, 1] == torch.tensor(0.1) / (torch.tensor(0.1) + 0.2 + 0.1 + 1e-6)


def test_second_reduction_may_keep_or_fuse_the_fused_token():
    tokens = torch.tensor([[[9.0], [4.0], [1.0], [8.0], [4.0], [2.0]]])
    first = text_guided_reduction(torch.tensor([[0.1, 0.25, 0.2, 0.1, 0.3]]), keep=2)
    # now CLS, b, e and the fused token (5.0): the best is the fused one, so b and e fuse behind it
    second = text_guided_reduction(torch.tensor([[0.3, 0.1, 0.6]]), keep=1)
    both = first.then(second)
    assert both.target.tolist() == [[0, 1, 2, 1, 1, 2]] and both.num_out == 3
    torch.testing.assert_close(
        both.apply(tokens), torch.tensor([[[9.0], [0.25 * 4 + 0.5 * 8 + 0.25 * 4], [0.75 * 1 + 0.25 * 2]]]),
        rtol=1e-5, atol=0,
    )  # fmt: skip
    assert both.sizes().tolist() == [[1, 3, 2]]


def test_counts_of_the_paper():
    assert text_guided_counts(256, [0.90, 0.65, 0.40]) == [257, 232, 168, 104]
    assert text_guided_counts(196, [0.90, 0.65, 0.40]) == [197, 178, 129, 80]
    assert kept_counts(100, [0.29, 0.07]) == [29, 7]  # in floating point a little less than 29 and more than 7
    assert text_guided_counts(9, [1.0, 1.0]) == [10, 10, 10]
    assert text_guided_counts(9, [0.9, 0.0], num_prefix=5) == [14, 14, 6]


@pytest.mark.parametrize("bad", [[1.1], [-0.1], [0.4, 0.5]])
def test_impossible_ratios_name_the_key(bad):
    with pytest.raises(ConfigError, match="elip_keep"):
        kept_counts(100, bad)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 30), st.integers(0, 32), st.integers(0, 3), st.integers(0, 9999))


@given(shapes, st.booleans())
@settings(max_examples=150, deadline=None)
def test_reductions_keep_what_they_must(shape, ties):
    batch, candidates, keep, prefix, seed = shape
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch, candidates, generator=generator)
    if ties:
        scores = (scores * 3).round()
    reduction = text_guided_reduction(scores, keep, num_prefix=prefix)
    if candidates - keep < 2:
        assert reduction.target.tolist() == [list(range(prefix + candidates))] * batch
        assert (reduction.weight == 1).all()
        return
    assert reduction.num_out == prefix + keep + 1
    assert reduction.target[:, :prefix].tolist() == [list(range(prefix))] * batch
    for row, weights, score in zip(reduction.target.tolist(), reduction.weight, scores, strict=True):
        stay = [i for i, target in enumerate(row[prefix:]) if target != prefix + keep]
        fused = [i for i, target in enumerate(row[prefix:]) if target == prefix + keep]
        # in their order, one after the other, and none of them scores less than a fused one
        assert [row[prefix + i] for i in stay] == list(range(prefix, prefix + keep))
        assert not stay or score[stay].min() >= score[fused].max()
        assert (weights[[*range(prefix), *(prefix + i for i in stay)]] == 1).all()
        total = score[fused].sum()
        torch.testing.assert_close(weights[[prefix + i for i in fused]].sum(), total / (total + 1e-6))


@given(st.integers(0, 9999))
@settings(max_examples=30, deadline=None)
def test_composes_with_itself_and_with_matching(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 21, 3, generator=generator)
    steps = [text_guided_reduction(torch.rand(2, 20, generator=generator), 15)]
    steps.append(bipartite_soft_matching(torch.randn(2, 17, 4, generator=generator), 5))
    steps.append(text_guided_reduction(torch.rand(2, 11, generator=generator), 4))
    reduced, composed = x, None
    for step in steps:
        reduced = step.apply(reduced)
        composed = step if composed is None else composed.then(step)
    assert reduced.shape == (2, 6, 3)
    torch.testing.assert_close(composed.apply(x), reduced)
    assert all(set(row.tolist()) == set(range(6)) for row in composed.target)
    assert composed.sizes().sum(1).tolist() == [21, 21]


def test_gradient_flows_through_features_and_not_through_scores():
    scores = torch.tensor([[0.1, 0.3, 0.3, 0.2, 0.1]], requires_grad=True)
    tokens = torch.randn(1, 6, 2, requires_grad=True)
    reduction = text_guided_reduction(scores, keep=2)
    assert not reduction.weight.requires_grad
    reduction.apply(tokens).sum().backward()
    assert scores.grad is None
    # what a token adds to the sum of the outputs is its weight: 1 for CLS, b, c; 1/4, 1/2, 1/4 for a, d, e
    torch.testing.assert_close(tokens.grad[0, :, 0], torch.tensor([1, 0.25, 1, 1, 0.5, 0.25]), rtol=1e-5, atol=0)


def test_no_scores_at_all_give_an_empty_token_rather_than_nan():
    reduction = text_guided_reduction(torch.zeros(1, 4), keep=1)
    assert reduction.target.tolist() == [[0, 1, 2, 2, 2]]
    assert reduction.weight.tolist() == [[1, 1, 0, 0, 0]]

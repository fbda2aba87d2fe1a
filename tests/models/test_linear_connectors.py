"""Linear connectors: all tokens, means over cells, random patches, and merging without training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.linear import LinearConnector, grid_cells, merge_down
from lavis_evlgen.models.vision import VisionTower

PREFIX = {"cls": 1, "registers": 3, "patches alone": 0}


def tower(prefix=1, side=4, width=6):
    """A tower of side x side patches, which is asked for nothing but its sizes."""
    return VisionTower(torch.nn.Identity(), width, side, 1, prefix)


def numbered(batch=2, prefix=1, side=4):
    """Tokens [B, L, 6] whose first entry is their place and whose others are zero."""
    tokens = torch.zeros(batch, prefix + side * side, 6)
    tokens[:, :, 0] = torch.arange(prefix + side * side)
    return tokens


@pytest.mark.parametrize("prefix", PREFIX.values(), ids=PREFIX)
@pytest.mark.parametrize("reduction", ["average", "random", "merge"])
@pytest.mark.parametrize("training", [True, False])
def test_tokens_are_the_linear_image_of_what_the_reduction_says(prefix, reduction, training):
    connector = LinearConnector(tower(prefix), 5, reduction, 7).train(training)
    features = torch.randn(3, prefix + 16, 6)
    tokens, how = connector.reduce(features)
    assert tokens.shape == (3, 7, 5) == (3, connector.num_tokens_out, connector.hidden_size)
    torch.testing.assert_close(tokens, connector.input_proj(how.apply(features)))
    totals = torch.zeros(3, 7).scatter_add(1, how.target, how.weight)
    torch.testing.assert_close(totals, torch.ones(3, 7))
    kept = connector.num_prefix_tokens if reduction != "merge" else min(prefix, 1)
    assert torch.equal(how.target[:, :kept], torch.arange(kept).expand(3, kept))
    assert (how.target[:, kept:] * how.weight[:, kept:]).bool().sum() >= 3 * (7 - max(kept, 1))


def test_without_a_reduction_all_tokens_stay():
    connector = LinearConnector(tower(), 5)
    tokens, how = connector.reduce(numbered())
    assert tokens.shape == (2, 17, 5) and connector.num_tokens_out == 17
    assert torch.equal(how.target[1], torch.arange(17))


def test_means_over_equal_cells():
    connector = LinearConnector(tower(), 5, "average", 5)
    _, how = connector.reduce(numbered())
    # CLS, and the means of 2x2 patches: places 1, 2, 5, 6 and so on
    assert how.apply(numbered())[0, :, 0].tolist() == [0, 3.5, 5.5, 11.5, 13.5]


@pytest.mark.parametrize(
    ("count", "cells"),
    [
        (1, [[0] * 4] * 4),
        (2, [[0] * 4] * 2 + [[1] * 4] * 2),
        (8, [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5], [6, 6, 7, 7]]),
        (3, [[0] * 4] * 2 + [[1, 1, 2, 2]] * 2),
        (7, [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3], [4, 4, 5, 6]]),
    ],
)
def test_cells_of_a_grid_of_sixteen(count, cells):
    found = grid_cells(4, 4, count).view(4, 4)
    if count == 2:  # two halves, either way
        assert found.tolist() in (cells, [[0, 0, 1, 1]] * 4)
    elif count == 8:
        assert found.tolist() in (cells, [[0, 1, 2, 3]] * 2 + [[4, 5, 6, 7]] * 2)
    else:
        assert found.tolist() == cells


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_cells_are_rectangles_that_fill_the_grid(rows, columns, data):
    count = data.draw(st.integers(1, rows * columns))
    cells = grid_cells(rows, columns, count).view(rows, columns)
    assert set(cells.flatten().tolist()) == set(range(count))
    for cell in range(count):
        ys, xs = torch.where(cells == cell)
        height, width = int(ys.max() - ys.min()) + 1, int(xs.max() - xs.min()) + 1
        assert len(ys) == height * width


def test_random_patches_are_drawn_in_training_and_even_in_evaluation():
    connector = LinearConnector(tower(), 5, "random", 5).train()
    features = numbered(batch=400)
    torch.manual_seed(0)
    first, second = (connector.reduce(features)[1].apply(features)[:, :, 0].int() for _ in range(2))
    assert (first[:, 0] == 0).all() and (first[:, 1:] > 0).all()
    assert (first.diff(dim=1) > 0).all(), "in the order of the picture, none twice"
    assert not torch.equal(first, second) and len(set(map(tuple, first.tolist()))) > 300
    often = torch.bincount(first[:, 1:].flatten(), minlength=17)[1:] / 400
    assert often.min() > 0.15 and often.max() < 0.35  # 4 of 16
    connector.eval()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    tokens = connector.reduce(features)[1].apply(features)[:, :, 0]
    assert torch.equal(before, torch.get_rng_state())
    assert tokens.tolist() == [[0, 3, 7, 11, 15]] * 400


def test_dropped_patches_have_no_weight_and_no_gradient():
    connector = LinearConnector(tower(), 5, "random", 3).eval()
    features = torch.randn(1, 17, 6, requires_grad=True)
    tokens, how = connector.reduce(features)
    tokens.sum().backward()
    assert features.grad.any(dim=-1).flatten().nonzero().flatten().tolist() == [0, 5, 13]
    assert how.weight[0].nonzero().flatten().tolist() == [0, 5, 13]


def test_merging_by_hand():
    """CLS and four patches, the odd places against the even ones: 2 joins 3, then 1 joins both, never the CLS token."""
    cls, one, two, three, four = [1.0, 0, 0], [0.0, 4, 4], [0.0, 1, 2], [0.0, 2, 4], [3.0, 0, 0]
    features = torch.tensor([[cls, one, two, three, four]])
    first = merge_down(features, 4, protect_cls=True)
    assert first.apply(features)[0].tolist() == [cls, four, one, [0, 1.5, 3]]
    second = merge_down(features, 3, protect_cls=True)
    torch.testing.assert_close(second.apply(features)[0], torch.tensor([cls, four, [0, 7 / 3, 10 / 3]]))
    assert second.target[0].tolist() == [0, 2, 2, 2, 1]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.booleans(), st.data())
def test_merging_reaches_every_count(num_tokens, protect_cls, data):
    count = data.draw(st.integers(1 + protect_cls, num_tokens))
    features = torch.randn(2, num_tokens, 3)
    reduction = merge_down(features, count, protect_cls=protect_cls)
    assert reduction.num_out == count and reduction.apply(features).shape == (2, count, 3)
    for row in reduction.target.tolist():
        assert set(row) == set(range(count))
    torch.testing.assert_close(reduction.weight, 1 / reduction.sizes().gather(1, reduction.target))


@pytest.mark.parametrize("reduction", ["average", "random", "merge"])
def test_a_model_with_a_merged_skip_trains(tiny_model, batch, reduction):
    options = {"connector": "linear", "linear_reduction": reduction, "num_query_token": 5, "merged_skip": True}
    model = tiny_model("opt", **options).train()
    model(batch)["loss"].backward()
    assert model.skip_proj.weight.grad.any() and model.connector.input_proj.weight.grad is not None
    model.eval()
    features = model.extract_features(batch)
    assert features.soft_prompt.shape[1] == 5 and features.source_map.shape == (3, 17)
    assert torch.equal(features.soft_prompt, model.extract_features(batch).soft_prompt)


@pytest.mark.parametrize(
    ("reduction", "count", "message"),
    [
        ("averge", 5, "linear_reduction: 'averge' is unknown; did you mean 'average'"),
        ("random", 1, "num_query_token: 1 for linear_reduction: random; the ViT gives 17 tokens, 1 of"),
        ("merge", 18, r"num_query_token: 18 .*choose 2 to 17"),
    ],
)
def test_wrong_reductions_are_named(tiny_model, reduction, count, message):
    with pytest.raises(ConfigError, match=message):
        tiny_model("opt", connector="linear", linear_reduction=reduction, num_query_token=count)

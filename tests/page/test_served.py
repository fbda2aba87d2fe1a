"""The models behind the page: names, budgets, shared weights, and options that name no model."""

import pytest
import torch
from page.conftest import served_options, tokens_by_layer

from lavis_evlgen.errors import ConfigError, WeightsError
from lavis_evlgen.page.served import budgets, find, load_served, share_frozen


def test_models_are_named_by_their_files_and_found_by_name(served, checkpoints):
    folder = checkpoints["image"].parent.name
    assert [each.name for each in served] == [f"{folder}/{name}.pth" for name in ("image", "other", "video")]
    assert [each.takes_clips for each in served] == [False, False, True]
    assert find(served, None) is served[0] and find(served, served[2].name) is served[2]
    with pytest.raises(ConfigError, match=r"model 'image' is not served here; known are"):
        find(served, "image")
    assert not any(each.shipped for each in served)


def test_the_same_file_twice_has_two_names(checkpoints):
    twice = load_served(served_options(checkpoints["image"], checkpoints["image"]))
    assert twice[1].name == f"{twice[0].name} #2"


def test_budgets_begin_with_the_fewest_and_hold_that_of_training(served):
    image = served[0]
    choices = budgets(image)
    assert image.visual_tokens == 17 and choices[-1] == 17 and choices[0] == image.fewest_tokens
    assert image.trained_tokens in choices and choices == sorted(set(choices))
    assert image.schedule(image.trained_tokens) == image.model.connector.schedule
    for tokens in choices:
        assert tokens_by_layer(image, tokens)[-1] == tokens


def test_another_budget_leaves_the_model_as_it_is(served):
    image = served[0]
    before, trained = list(image.model.connector.schedule), image.trained_tokens
    other = image.with_budget(17)
    assert other.connector.schedule == [0] * len(before) and other.connector.num_tokens_out == 17
    assert image.model.connector.schedule == before and image.trained_tokens == trained
    pairs = zip(image.model.parameters(), other.parameters(), strict=True)
    assert all(first is second for first, second in pairs)
    assert image.with_budget(None) is image.model
    picture = torch.zeros(1, 3, 56, 56)
    assert other.extract_features({"image": picture}).soft_prompt.shape[1] == 17
    assert image.model.extract_features({"image": picture}).soft_prompt.shape[1] == trained
    with pytest.raises(ConfigError, match="tokens: 17 cannot be merged into 18; choose"):
        image.with_budget(18)


def test_a_connector_of_fixed_size_has_one_budget(served, tiny_model):
    from dataclasses import replace

    fixed = replace(served[0], model=tiny_model("any", connector="qformer", num_query_token=4))
    assert budgets(fixed) == [4] and fixed.fewest_tokens is None
    with pytest.raises(ConfigError, match="always gives 4"):
        fixed.with_budget(3)


def test_equal_frozen_weights_are_kept_once(tiny_model):
    first, second, third = (tiny_model("any", seed=seed) for seed in (0, 0, 1))
    frozen = [name for name, each in first.named_parameters() if not each.requires_grad]
    size = sum(each.numel() * each.element_size() for each in first.parameters() if not each.requires_grad)
    own = {name: each.clone() for name, each in third.named_parameters()}
    saved = share_frozen([first, second, third])
    places = [dict(each.named_parameters()) for each in (first, second, third)]
    assert all(places[0][name].data_ptr() == places[1][name].data_ptr() for name in frozen)
    assert size <= saved < 2 * size, "the language model of the third is the same, its random ViT is not"
    assert all(torch.equal(places[2][name], own[name]) for name in own)
    trained = [name for name in places[0] if name not in frozen]
    assert all(places[0][name].data_ptr() != places[1][name].data_ptr() for name in trained)


@pytest.mark.parametrize(
    ("beside", "text"),
    [
        (
            "gone.pth",
            "--beside gone.pth: there is no such file, and no such type of the model evlgen; known are",
        ),
        (
            "evlgen_vide:demo",
            "--beside evlgen_vide:demo: model 'evlgen_vide' is not registered; did you mean",
        ),
        ("dem", "--beside dem: there is no such file, and no such type of the model evlgen; did you mean 'demo'"),
    ],
)
def test_what_stands_beside_must_exist(checkpoints, beside, text):
    with pytest.raises(ConfigError) as error:
        load_served(served_options(checkpoints["image"], beside))
    assert text in str(error.value)


def test_missing_weights_are_named():
    with pytest.raises(WeightsError, match="gone"):
        load_served(served_options("gone.pth"))

"""The weights that a model had before its training."""

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_evlgen.errors import ConfigError, WeightsError
from lavis_evlgen.models.zoo import EVLGenAny
from lavis_evlgen.reports.tokens.start import start_weights


@pytest.fixture(scope="module")
def saved(tiny_config, tmp_path_factory):
    """A checkpoint of a run with seed 7, and its model's configuration."""
    path = tmp_path_factory.mktemp("saved") / "model.pth"
    model = {"arch": "evlgen", **tiny_config("any")}
    model = OmegaConf.to_container(OmegaConf.create(model))
    torch.save({"model": built(model, 3), "config": {"model": model, "run": {"seed": 7}}}, path)
    return str(path), model


def built(config: dict, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return registry.get_model_class("evlgen").from_config(OmegaConf.create(config)).trainable_state_dict()


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_start_of_a_checkpoint_is_that_of_its_run(saved):
    path, config = saved
    torch.manual_seed(5)
    start = start_weights(None, None, path)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn), "the global generator is as it was"
    assert start.text == "fresh weights by the seed 7"
    assert equal(start.weights, built(config, 7)) and not equal(start.weights, built(config, 3))


def test_a_run_that_went_on_from_other_weights_started_there(saved, tmp_path):
    path, config = saved
    tuned = str(tmp_path / "tuned.pth")
    config = {**config, "load_pretrained": True, "pretrained": path}
    torch.save({"model": built(config, 1), "config": {"model": config, "run": {}}}, tuned)
    start = start_weights(None, None, tuned)
    assert start.text == f"the weights {path} that this training started from"
    assert equal(start.weights, torch.load(path, weights_only=True)["model"])
    config["pretrained"] = str(tmp_path / "gone.pth")
    torch.save({"model": {}, "config": {"model": config}}, tuned)
    with pytest.raises(WeightsError, match="gone.pth"):
        start_weights(None, None, tuned)


def test_the_start_of_a_model_type_is_without_its_weights(saved, tmp_path, monkeypatch):
    path, config = saved
    config = {**config, "load_pretrained": True, "pretrained": path}
    OmegaConf.save(OmegaConf.create({"model": config}), tmp_path / "tiny.yaml")
    types = {"tiny": str(tmp_path / "tiny.yaml")}
    monkeypatch.setattr(EVLGenAny, "PRETRAINED_MODEL_CONFIG_DICT", types)
    fresh = built({**config, "load_pretrained": False}, 7)
    assert equal(start_weights("evlgen", "tiny", None).weights, fresh), "the seed is that of the weights' run"
    bare = str(tmp_path / "bare.pth")
    torch.save(built(config, 1), bare)
    start = start_weights("evlgen", "tiny", bare)
    assert start.text == "fresh weights by the seed 42"
    assert equal(start.weights, built({**config, "load_pretrained": False}, 42))
    OmegaConf.save(OmegaConf.create({"model": {**config, "pretrained": None}}), tmp_path / "tiny.yaml")
    with pytest.raises(ConfigError, match="names no trained weights.*add --checkpoint FILE"):
        start_weights("evlgen", "tiny", None)


def test_a_start_that_is_not_known_is_said(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "bare.pth")
    for arguments, message in {
        (None, None, str(tmp_path / "bare.pth")): "does not say of which model it is: add --model",
        ("evlgn", None, None): "model 'evlgn' is not registered; did you mean 'evlgen'",
        ("blip2_opt", None, None): "blip2_opt is no model of this package",
        ("evlgen", "dmo", None): "model_type: 'dmo' is unknown for EVLGenAny",
    }.items():
        with pytest.raises(ConfigError, match=message):
            start_weights(*arguments)

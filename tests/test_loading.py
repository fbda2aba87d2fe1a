"""Names, model types and their errors."""

import importlib

import pytest
from lavis.common.registry import registry
from lavis.models import load_model
from omegaconf import OmegaConf

import lavis_evlgen
from lavis_evlgen.errors import ConfigError, WeightsError
from lavis_evlgen.models.config import ModelConfig

NAMES = {
    "opt": ("evlgen_opt", "blip2_tome_opt", "liptome_opt"),
    "vicuna": ("evlgen_vicuna", "blip2_tome_vicuna", "liptome_vicuna"),
    "any": ("evlgen",),
}


def test_names_are_registered():
    for kind, names in NAMES.items():
        for name in names:
            assert registry.get_model_class(name).language_kind == kind


def test_registering_twice_is_harmless():
    importlib.reload(lavis_evlgen)
    assert registry.get_model_class("evlgen_opt") is registry.get_model_class("liptome_opt")


def all_types():
    return [
        (names[0], t)
        for names in NAMES.values()
        for t in registry.get_model_class(names[0]).PRETRAINED_MODEL_CONFIG_DICT
    ]


@pytest.mark.parametrize(("name", "model_type"), all_types())
def test_model_types_have_only_known_keys(name, model_type):
    yaml = OmegaConf.load(registry.get_model_class(name).default_config_path(model_type))
    config = ModelConfig.parse(OmegaConf.to_container(yaml.model, resolve=True))
    assert config.arch == name
    sizes = [yaml.preprocess.vis_processor[split].image_size for split in ("train", "eval")]
    assert sizes == [config.image_size] * 2


def test_unknown_names_and_types():
    with pytest.raises(ConfigError, match="'evlgen_optt' is not registered; did you mean 'evlgen_opt'"):
        lavis_evlgen.load_model_and_preprocess("evlgen_optt")
    with pytest.raises(ConfigError, match=r"'pretrain_opt2.8b' is unknown .* pretrain_opt2.7b"):
        lavis_evlgen.load_model_and_preprocess("evlgen_opt", "pretrain_opt2.8b")
    with pytest.raises(ConfigError, match="model_type: blip2_opt has no default"):
        lavis_evlgen.load_model_and_preprocess("blip2_opt")


def test_weights_that_are_not_there(tiny_config):
    vit = {key: tiny_config()[key] for key in ("vit_model", "vit_config", "image_size", "vit_precision")}
    with pytest.raises(WeightsError, match=r"bert_model: cannot load 'bert-base-uncased'.*Set model.bert_model"):
        lavis_evlgen.load_model_and_preprocess("evlgen_opt", **vit)
    connector = {
        "bert_model": None,
        "connector_config": tiny_config()["connector_config"],
        "num_layers": None,
        "tome_r": 4,
    }
    with pytest.raises(WeightsError, match=r"opt_model: cannot load 'facebook/opt-2.7b'.*Set model.opt_model"):
        lavis_evlgen.load_model_and_preprocess("evlgen_opt", **vit, **connector)


def test_checkpoint_by_default_place(tiny_config, parity_dir, tmp_path, monkeypatch):
    """The default model type reads its connector from $EVLGEN_WEIGHTS, and says so where it is missing."""
    monkeypatch.setenv("EVLGEN_WEIGHTS", str(tmp_path))
    options = {**tiny_config(), "num_layers": None}
    with pytest.raises(WeightsError, match=r"there is no file .*evlgen_pretrain_opt2.7b.pth"):
        lavis_evlgen.load_model_and_preprocess("evlgen_opt", **options)
    (tmp_path / "evlgen_pretrain_opt2.7b.pth").symlink_to(parity_dir.resolve() / "liptome_opt.pth")
    model, vis, text = lavis_evlgen.load_model_and_preprocess("evlgen_opt", **options)
    assert not model.training and set(vis) == set(text) == {"train", "eval"}


def test_lavis_own_loader_works(tiny_config, parity_dir, tmp_path, monkeypatch):
    yaml = tmp_path / "tiny.yaml"
    config = {**tiny_config(), "arch": "evlgen_opt", "pretrained": str(parity_dir / "liptome_opt.pth")}
    OmegaConf.save({"model": config}, yaml)
    cls = registry.get_model_class("evlgen_opt")
    monkeypatch.setitem(cls.PRETRAINED_MODEL_CONFIG_DICT, "tiny", str(yaml))
    assert load_model("evlgen_opt", "tiny", is_eval=True).vision.image_size == 56

"""Every yaml of ours, and LAVIS's own that train BLIP-2, has costs, or an error that says why not."""

from pathlib import Path

import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_evlgen.cost.estimate import Assumptions, estimate_file
from lavis_evlgen.cost.skeleton import build_skeleton, model_section
from lavis_evlgen.cost.text import as_text
from lavis_evlgen.errors import ConfigError

ROOT = Path(__file__).parents[2]
OURS = sorted(ROOT.glob("projects/*/*.yaml"))
LAVIS = sorted(Path(registry.get_path("library_root"), "projects/blip2/train").glob("*.yaml"))
WITHOUT = ("elip_", "blip2_t5")  # other kinds of models


def is_known(path):
    return not str(OmegaConf.load(path).model.arch).startswith(WITHOUT)


# keys that choose parts; files that differ in others alone are built alike
CHOICES = (
    *("vit_model", "connector", "bert_model", "num_layers", "linear_reduction"),
    *("opt_model", "llm_model", "temporal", "merged_skip"),
)


def test_every_model_is_built_without_weights():
    """Those of all files, each choice of parts once."""
    built = {}
    for path in [*OURS, *LAVIS]:
        if is_known(path):
            model, keys, _ = model_section(OmegaConf.load(path))
            key = (model, *map(keys.get, CHOICES))
            if key not in built:
                built[key] = build_skeleton(model, keys)
    assert len(built) > 12
    assert all(p.device.type == "meta" for model in built.values() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("path", [*OURS, *LAVIS], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_file_has_costs_or_an_error(path):
    if not is_known(path):
        with pytest.raises(ConfigError, match="model.arch: .* is neither an EVLGen nor a BLIP-2 with OPT or Vicuna"):
            estimate_file(str(path), [], Assumptions())
        return
    costs = estimate_file(str(path), [], Assumptions())
    total = costs["macs_an_image"]["total"]
    assert (total["backward"] > 0) is costs["setting"]["trains"] is (costs["time"] is not None)
    assert costs["parameters"]["total"]["trainable"] > 1e6
    assert "files: model.pth" in as_text(costs)


@pytest.mark.parametrize("config", ["blip2_opt", "blip2", "blip2_vicuna_instruct"])
def test_lavis_names_stand_for_models_with_the_same_parts(config):
    sections = {
        "blip2_opt": {"model_type": "pretrain_opt2.7b"},
        "blip2": {"model_type": "pretrain"},
        "blip2_vicuna_instruct": {"llm_model": "somewhere/vicuna-7b", "qformer_text_input": False},
    }
    model, keys, notes = model_section(OmegaConf.create({"model": {"arch": config, **sections[config]}}))
    skeleton = build_skeleton(model, keys)
    trained = sum(p.numel() for p in skeleton.parameters() if p.requires_grad)
    # the Q-Former, and linear maps: 768 to the language model's width, or to 256 twice and to 2
    projections = {
        "blip2_opt": 769 * 2560,
        "blip2": 2 * 769 * 256 + 769 * 2 + 1,
        "blip2_vicuna_instruct": 769 * 4096,
    }
    qformer = 105_162_240 if config != "blip2" else 186_282_811 + 32 * 768
    assert trained == qformer + projections[config] + 2 * 1408
    assert bool(notes) is (config != "blip2")
    if config == "blip2_vicuna_instruct":  # the padding token makes two tables a row longer
        assert sum(p.numel() for p in skeleton.language.parameters()) == 6_738_415_616 + 2 * 4096

"""Values of another kind than those that they stand for are named, wherever configurations are put together."""

import pytest
from omegaconf import OmegaConf

import lavis_evlgen
from lavis_evlgen import launch
from lavis_evlgen.comparison.plan import read_plan
from lavis_evlgen.configuration.merge import check_fits, merged
from lavis_evlgen.cost.skeleton import model_section
from lavis_evlgen.errors import ConfigError

BASE = {"model": {"tome_r": [32, 16], "size": {"w": 1, "h": 2}, "name": "${model.other}", "other": "x"}}
WRONG = r"model\.tome_r: expected a list, as \[.*\] is, not keys and values: \{'a': 1\}"
RUN = {
    "model": {"arch": "evlgen", "model_type": "demo"},
    "datasets": {"image_caption": {"images": "a", "annotations": {"train": "t.jsonl"}}},
    "run": {"task": "captioning", "max_iters": 3},
}


def test_values_of_one_kind_are_put_in():
    base = OmegaConf.create(BASE)
    found = merged(base.model, {"tome_r": 8, "size": {"h": 3}, "new": [1]}, "model")
    assert OmegaConf.to_container(found) == {
        **BASE["model"], "tome_r": 8, "size": {"w": 1, "h": 3}, "new": [1]
    }  # fmt: skip
    assert OmegaConf.to_container(base) == BASE
    check_fits({"size": None, "tome_r": "text"}, BASE["model"], "model")  # for those who use it to judge


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"tome_r": {"a": 1}}, WRONG),
        ({"size": [3]}, r"model\.size: expected keys and values, as \{'w': 1, 'h': 2\} is, not a list: \[3\]"),
        ({"size": {"w": 2}, "tome_r": {}}, r"model\.tome_r: expected a list"),
    ],
)
def test_those_of_another_kind_are_named(new, said):
    with pytest.raises(ConfigError, match=said):
        merged(OmegaConf.create(BASE).model, new, "model")


def test_a_run_a_type_costs_and_an_arm_name_the_key(tmp_path):
    config = OmegaConf.create(RUN)
    config.model.tome_r = {"a": 1}
    OmegaConf.save(config, tmp_path / "run.yaml")
    with pytest.raises(ConfigError, match=WRONG):
        launch.start(["--cfg-path", str(tmp_path / "run.yaml")], evaluate=False)
    with pytest.raises(ConfigError, match=WRONG):
        lavis_evlgen.load_model_and_preprocess("evlgen", "demo", tome_r={"a": 1})
    with pytest.raises(ConfigError, match=WRONG):
        model_section(config)
    arms = {"a": {"model": {"tome_r": [3]}}, "b": {"stages": [{}, {"model": {"tome_r": {"a": 1}}}]}}
    config.model.tome_r = [32, 16]
    config.compare = {"arms": arms}
    OmegaConf.save(config, tmp_path / "compare.yaml")
    with pytest.raises(ConfigError, match=rf"compare\.arms\.b\.stages\[1\]\.{WRONG}"):
        read_plan(str(tmp_path / "compare.yaml"))

"""What a `compare` section means, and what is wrong with it."""

import pytest

from lavis_evlgen.comparison.plan import read_plan
from lavis_evlgen.errors import ConfigError


def test_an_arm_is_the_base_with_its_own_keys(comparison):
    plan = read_plan(comparison(data="patterns", reference="wide"))
    assert [arm.name for arm in plan.arms] == ["plain", "wide", "two"]
    assert plan.arms[0].title == "as it is"
    assert plan.arms[1].stages[0].config.model == {"arch": "tiny", "model_type": "default", "width": 32}
    assert [stage.steps for stage in plan.arms[2].stages] == [4, 12]
    assert (plan.name, plan.data, plan.reference, plan.turn, plan.seeds) == ("tiny", "patterns", "wide", 3, (1,))


def test_a_model_of_another_arch_takes_nothing_from_the_base(comparison):
    arms = {
        "other": {"model": {"arch": "evlgen", "model_type": "demo"}},
        "same": {"model": {"arch": "tiny", "width": 8}},
    }
    other, same = read_plan(comparison(arms=arms), ["model.dropout=0.5"]).arms
    assert other.stages[0].config.model == {"arch": "evlgen", "model_type": "demo"}
    assert same.stages[0].config.model == {"arch": "tiny", "model_type": "default", "width": 8, "dropout": 0.5}


def test_a_sweep_takes_lists_too(comparison):
    plan = read_plan(comparison(), sweep="tome_r=19,[8,4],38")
    assert [arm.name for arm in plan.arms] == ["tome_r=19", "tome_r=8-4", "tome_r=38"]
    assert [arm.stages[0].config.model.tome_r for arm in plan.arms] == [19, [8, 4], 38]
    assert plan.out.name == "tiny_tome_r"
    assert plan.tune is None


def test_seeds_that_are_asked_for_do_not_move_the_tuning(comparison):
    tune = {"key": "init_lr", "values": [0.1], "steps": 4}
    plan = read_plan(comparison(seeds=[5, 6], tune=tune), seeds=[6])
    assert plan.seeds == (6,) and plan.tune.seed == 5


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"arms": None}, "compare.arms must name the arms"),
        ({"armz": {}}, "compare.armz is unknown; did you mean 'arms'"),
        ({"arms": {"a": {"modle": {}}}}, "compare.arms.a.modle is unknown; did you mean 'model'"),
        ({"arms": {"a b": None}}, "compare.arms.a b: a name is made of letters"),
        ({"arms": {"a": {"stages": [{"steps": 3}]}}}, r"compare.arms.a.stages\[0\].steps is unknown"),
        ({"seeds": ["one"]}, "compare.seeds: .* expected whole numbers"),
        ({"tune": {"key": "init_lr", "values": [1]}}, "compare.tune.steps is missing"),
        ({"tune": {"key": "init_lr", "values": [1], "steps": 4, "arms": ["plan"]}}, "did you mean 'plain'"),
        ({"reference": "wid"}, "compare.reference: 'wid' is no arm; did you mean 'wide'"),
        ({"claims": [{"arm": "plain", "of": "q"}]}, "compare.claims: 'q' is no arm"),
        ({"arms": {"a": {"run": {"max_iters": 7}}}}, r"arm a: run.max_iters \(7\) must be a multiple"),
        ({"arms": {"a": {"run": {"max_iters": 0}}}}, "arm a: run.max_iters is missing"),
    ],
)
def test_wrong_sections_are_named(comparison, section, message):
    with pytest.raises(ConfigError, match=message):
        read_plan(comparison(**section))


def test_unknown_arms_and_sweeps_of_the_command_line_are_named(comparison):
    path = comparison()
    with pytest.raises(ConfigError, match="--arms: 'wyde' is no arm; did you mean 'wide'"):
        read_plan(path, arms=["wyde"])
    with pytest.raises(ConfigError, match="--sweep"):
        read_plan(path, sweep="tome_r")


def test_a_yaml_without_arms_says_what_is_missing(tmp_path, comparison):
    path = comparison(arms=None, seeds=None, turn=None)
    with pytest.raises(ConfigError, match="has no section `compare`"):
        read_plan(path)

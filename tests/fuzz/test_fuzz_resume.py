"""Checkpoints that can be read but do not hold what a run is put back from."""

import copy
from typing import Any

import pytest
import tiny_runs
import torch
from hypothesis import strategies as st
from mutations import mutated, places, values

from lavis_evlgen import launch
from lavis_evlgen.configuration.read import read_config
from lavis_evlgen.errors import ConfigError, WeightsError
from lavis_evlgen.runners import rng
from lavis_evlgen.runners.placement import Placement


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    """A runner of the tiny model, and the state that it wrote after two steps."""
    folder = tmp_path_factory.mktemp("run")
    argv = tiny_runs.write_config(folder, max_iters=2, iters_per_inner_epoch=2)
    launch.start(argv, evaluate=False)
    config = read_config(argv[1], [])
    launch.fill_in(config.run, Placement(), evaluate=False)
    launch.choose_runner(config.run, stock=False)
    state = torch.load(folder / "out" / "checkpoint_2.pth", weights_only=True)
    return launch.build_runner(launch.lavis_config(config)), state


def check(guard: Any, runner: Any, state: Any) -> Any:
    """The run goes on, or the checkpoint is named."""
    guard.empty()
    runner.output_dir = runner.folder.path = guard.inside
    runner.log.path = guard.inside / "log.jsonl"
    path = guard.inside / "checkpoint_2.pth"
    torch.save(state, path)
    with rng.preserved():
        found = guard.read(runner.training.resume)
    if found is not None:
        assert isinstance(found, WeightsError)
        assert str(guard.inside) in str(found)
    return found


def test_states(fuzz, guard, runner):
    built, state = runner
    tensors = st.sampled_from([torch.ones(2), torch.tensor(float("nan")), torch.ones(0, dtype=torch.uint8)])
    # most of the places are random numbers
    upper = {key: value for key, value in state.items() if key != "rng"}
    whole = mutated(upper, wrong=values | tensors).map(lambda changed: {"rng": state["rng"], **changed})
    generators = mutated(state["rng"], wrong=values | tensors).map(lambda changed: {**state, "rng": changed})
    fuzz(lambda changed: check(guard, built, changed), whole | generators, 40)


def test_every_part_of_another_kind_is_named(guard, runner):
    built, state = runner
    assert check(guard, built, state) is None
    for key in ("optimizer", "iters", "rng", "loader", "model", "config"):
        assert isinstance(check(guard, built, {**state, key: "text"}), WeightsError), key
        assert isinstance(check(guard, built, {**state, key: None}), WeightsError), key


def test_a_position_in_other_data_sets_names_the_checkpoint(guard, runner):
    built, state = runner
    bare = {**state, "loader": {**state["loader"], "positions": {}}}
    said = "checkpoint_2.pth was trained on no data set, but the configuration trains on tiny_data: set another "
    assert said in str(check(guard, built, bare))


def test_a_place_behind_the_random_numbers_is_refused(guard, runner):
    built, state = runner
    odd = copy.deepcopy(state)
    odd["rng"][0]["numpy"][1] = 10**6
    assert "position 1000000 of 624 random numbers" in str(check(guard, built, odd))
    assert (0, "numpy", 1) in places(state["rng"])


@pytest.mark.parametrize("folder", ["/dev/null/x", "x" * 300, "~nobody-of-this-name/" + "x" * 300])
def test_a_folder_that_cannot_be_made_is_named(guard, folder):
    argv = tiny_runs.write_config(guard.inside)
    with pytest.raises(ConfigError, match="run.output_dir: .*cannot be made"):
        launch.start([*argv, "--options", f"run.output_dir={folder}"], evaluate=False)

"""Arms that train by turns: each as if alone, stages, tuning, interruption, the record."""

import json
import os
import signal

import pytest
import tiny_runs
import torch

from lavis_evlgen import launch
from lavis_evlgen.comparison.compare import compare
from lavis_evlgen.comparison.plan import read_plan
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.runners.training import Training


def run(path, **options):
    return json.loads(compare(read_plan(path, **options), "a command").read_text())


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def finished(comparison, tmp_path):
    return run(comparison()), tmp_path / "tiny"


def test_an_arm_that_takes_turns_ends_with_the_weights_of_a_run_of_its_own(finished, comparison, tmp_path):
    _, folder = finished
    options = ["run.seed=1", f"run.output_dir={tmp_path / 'alone'}"]
    base = comparison("base")
    content = tiny_runs.OmegaConf.load(base)
    del content["compare"]
    tiny_runs.OmegaConf.save(content, base)
    launch.start(["--cfg-path", base, "--options", *options], evaluate=False)
    assert equal(tiny_runs.trained(folder / "plain" / "seed1"), tiny_runs.trained(tmp_path / "alone"))
    alone, by_turns = (tiny_runs.rows(path, "gap") for path in (tmp_path / "alone", folder / "plain" / "seed1"))
    assert by_turns == alone
    assert [row["iters"] for row in alone] == [4, 8, 12]


def test_the_record_has_curves_scores_and_facts(finished):
    record, folder = finished
    assert record["command"] == "a command"
    assert [arm["name"] for arm in record["arms"]] == ["plain", "wide", "two"]
    plain, wide, _ = record["arms"]
    assert wide["overrides"] == ["model.width=32"]
    # a hidden layer of width w and an output layer of 6 classes
    assert [arm["stages"][-1]["trainable_parameters"] for arm in (plain, wide)] == [
        16 * 17 + 6 * 17,
        32 * 33 + 6 * 33,
    ]
    assert all(arm["stages"][-1]["seconds_per_step"] > 0 for arm in record["arms"])
    assert plain["stages"][0]["peak_memory_gib"] is not None
    (course,) = plain["runs"]
    assert course["finished"]
    assert [(point["step"], point["images"]) for point in course["curve"]] == [(4, 16), (8, 32), (12, 48)]
    assert course["final"]["held_out_loss"] == course["curve"][-1]["held_out_loss"]
    assert course["final"]["scores"]["test_unseen"]["count"] == 7
    assert [(each["step"], each["split"]) for each in course["evaluations"]] == [
        (4, "val"),
        (8, "val"),
        (12, "val"),
        (12, "test_unseen"),
    ]
    seconds = [point["seconds"] for point in course["curve"]]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < course["final"]["seconds"]
    assert not list(folder.rglob("checkpoint_*"))


def test_stages_count_together_and_only_the_last_is_scored(finished):
    record, _ = finished
    two = record["arms"][2]
    assert [(stage["title"], stage["steps"]) for stage in two["stages"]] == [("first", 4), ("second", 12)]
    assert two["overrides"] == ["stage 1: run.max_iters=4", "stage 2: run.init_lr=0.02"]
    (course,) = two["runs"]
    assert [(point["stage"], point["step"]) for point in course["curve"]] == [(1, 4), (2, 8), (2, 12), (2, 16)]
    assert [each["step"] for each in course["evaluations"]] == [8, 12, 16, 16]
    assert course["final"]["steps"] == 16


def test_a_second_call_trains_nothing_again(finished, comparison):
    record, folder = finished
    weights = folder / "two" / "seed1" / "stage2" / "model.pth"
    before = weights.stat().st_mtime_ns
    assert run(comparison())["arms"] == record["arms"]
    assert weights.stat().st_mtime_ns == before


def test_stopped_and_started_again_it_ends_with_the_same_weights(finished, comparison, tmp_path, monkeypatch):
    _, whole = finished
    path = comparison("stopped", run={"log_freq": 1})
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        step = Training._train_step

        def told_to_stop(self, *args):
            if self.iters == 6 and self.runner.output_dir == folder / "wide" / "seed1":
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, *args)

        patch.setattr(Training, "_train_step", told_to_stop)
        with pytest.raises(SystemExit):
            compare(read_plan(path))
    assert not (folder / "two" / "seed1" / "stage2" / "model.pth").exists()
    compare(read_plan(path))
    for arm in ("plain", "wide", "two/seed1/stage1", "two/seed1/stage2"):
        own = arm if "stage" in arm else f"{arm}/seed1"
        assert equal(tiny_runs.trained(folder / own), tiny_runs.trained(whole / own)), arm


def test_tuning_takes_the_value_of_the_lowest_held_out_loss_for_each_arm(comparison, tmp_path):
    tune = {"key": "run.init_lr", "values": [1e-5, 0.01], "steps": 8, "arms": ["plain", "wide"]}
    record = run(comparison(tune=tune))
    scores = record["tuning"]["scores"]
    assert set(scores) == {"plain", "wide"}
    for arm in ("plain", "wide"):
        assert scores[arm]["0.01"] < scores[arm]["1e-05"]
        assert record["tuning"]["chosen"][arm] == 0.01
        assert tiny_runs.OmegaConf.load(tmp_path / "tiny" / arm / "seed1" / "config.yaml").run.init_lr == 0.01
    assert record["tuning"]["steps"] == 8
    assert not list((tmp_path / "tiny" / "tuning").rglob("*.pth"))


def test_stages_are_tuned_one_after_the_other(comparison, tmp_path):
    arms = {"two": {"stages": [{"run": {"max_iters": 4}}, {"run": {"max_iters": 8}}]}}
    tune = {"key": "run.init_lr", "values": [0.01, 1e-5], "steps": 8}
    record = run(comparison(tune=tune, arms=arms))
    scores = record["tuning"]["scores"]
    assert list(scores) == ["two, stage 1", "two"]
    assert scores["two, stage 1"]["0.01"] < scores["two, stage 1"]["1e-05"]
    assert record["tuning"]["chosen"] == {"two, stage 1": 0.01, "two": 0.01}
    folder = tmp_path / "tiny" / "two" / "seed1"
    rates = [tiny_runs.OmegaConf.load(folder / stage / "config.yaml").run.init_lr for stage in ("stage1", "stage2")]
    assert rates == [0.01, 0.01]


def test_a_value_that_diverges_has_no_score(comparison):
    tune = {"key": "model.nan_at", "values": [list(range(8)), []], "steps": 8}
    record = run(comparison(tune=tune, arms={"plain": None}, run={"max_nan_steps": 2}))
    first, second = record["tuning"]["scores"]["plain"].values()
    assert first is None
    assert second > 0
    assert record["tuning"]["chosen"] == {"plain": []}


def test_a_sweep_has_an_arm_for_every_value(comparison, tmp_path):
    record = run(comparison(), sweep="width=8,16", arms=["wide"])
    assert record["sweep"] == {"key": "model.width", "values": ["8", "16"], "arms": ["width=8", "width=16"]}
    assert [arm["stages"][0]["trainable_parameters"] for arm in record["arms"]] == [8 * 9 + 54, 16 * 17 + 102]
    assert (tmp_path / "tiny_width" / "width=8" / "seed1" / "model.pth").is_file()


def test_a_folder_of_another_run_is_refused_by_its_key(finished, comparison):
    with pytest.raises(ConfigError, match=r"plain.seed1 holds a run with run.init_lr: 0.01, now it is 0.5"):
        run(comparison(run={"init_lr": 0.5}))


def test_seeds_are_runs_of_their_own(comparison):
    record = run(comparison(arms={"plain": None}), seeds=[1, 2])
    one, other = (course["final"]["held_out_loss"] for course in record["arms"][0]["runs"])
    assert one != other

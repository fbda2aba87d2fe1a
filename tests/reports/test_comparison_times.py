"""Training time to a quality, worked out by hand and by properties."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports.comparison_example import document, write

from lavis_evlgen.reports.comparison.file import read_comparison
from lavis_evlgen.reports.comparison.report import figures, metrics, reference
from lavis_evlgen.reports.comparison.times import (
    CIDER,
    LOSS,
    Measured,
    final_value,
    first_crossing,
    measured,
    spread,
    steady_seconds,
    time_to_quality,
)


@pytest.fixture
def comparison(tmp_path):
    return read_comparison(write(tmp_path))


def changed(tmp_path, change):
    found = document()
    change(found)
    return read_comparison(write(tmp_path / "changed", found))


def curve(*values):
    return [Measured(10.0 * n, 80.0 * n, 5.0 * n, value) for n, value in enumerate(values, start=1)]


def test_the_first_crossing_is_found_on_straight_lines():
    found = first_crossing(curve(2.0, 1.0, 0.5, 1.5, 0.2), 0.75, lower=True)
    assert (found.step, found.images, found.seconds, found.at_most) == (25.0, 200.0, 12.5, False)
    found = first_crossing(curve(1.0, 4.0, 3.0), 2.0, lower=False)
    assert (found.step, found.at_most) == (pytest.approx(10 + 10 / 3), False)
    found = first_crossing(curve(2.0, 1.0), 1.0, lower=True)
    assert found.step == 20.0
    found = first_crossing(curve(0.7, 0.5), 0.75, lower=True)
    assert (found.step, found.at_most) == (10.0, True)
    assert first_crossing(curve(2.0, 1.0), 0.99, lower=True) is None
    assert first_crossing([], 1.0, lower=True) is None


losses = st.lists(st.floats(0.01, 10), min_size=1, max_size=8)


@given(losses, st.floats(0.01, 10), st.booleans())
def test_a_crossing_lies_between_its_neighbours_and_before_any_point_that_is_good_enough(values, wanted, lower):
    points = curve(*values)
    found = first_crossing(points, wanted, lower)
    good = [point for point in points if (point.value <= wanted if lower else point.value >= wanted)]
    assert (found is None) == (not good)
    if found:
        assert good[0].step - 10 <= found.step <= good[0].step
        assert found.images == pytest.approx(8 * found.step) and found.seconds == pytest.approx(found.step / 2)


@given(losses, st.floats(0.01, 5), st.floats(0.01, 5))
def test_a_better_quality_is_never_reached_earlier(values, one, other):
    better, worse = sorted((one, other))
    found = first_crossing(curve(*values), better, lower=True)
    easier = first_crossing(curve(*values), worse, lower=True)
    assert found is None or easier.step <= found.step + 1e-9


def test_steady_seconds_are_steps_times_the_median_of_their_stage(comparison):
    ours, _, two_stage = comparison.arms
    assert [steady_seconds(ours, step) for step in (0, 62.5, 100)] == [0.0, 62.5, 100.0]
    assert [steady_seconds(two_stage, step) for step in (50, 100, 125, 150, 999)] == [150, 300, 350, 400, 400]


def test_steady_seconds_are_unknown_where_a_step_time_is(tmp_path):
    def unknown(found):
        found["arms"][2]["stages"][1]["seconds_per_step"] = None

    two_stage = changed(tmp_path, unknown).arms[2]
    assert (steady_seconds(two_stage, 100), steady_seconds(two_stage, 101)) == (300.0, None)


def test_stages_with_another_loss_are_left_out(comparison):
    two_stage = comparison.arms[2]
    assert [(at.step, at.value) for at in measured(two_stage, two_stage.runs[0], LOSS, "val")] == [
        (125, 1.2),
        (150, 0.8),
    ]
    assert [(at.step, at.value) for at in measured(two_stage, two_stage.runs[0], CIDER, "val")] == [(125, 5), (150, 7)]
    assert measured(two_stage, two_stage.runs[0], CIDER, "test") == []
    assert final_value(two_stage, two_stage.runs[0], LOSS, "val") == 0.8
    assert final_value(two_stage, two_stage.runs[0], CIDER, "val") == 7.0
    assert final_value(two_stage, two_stage.runs[1], CIDER, "val") is None  # not finished


def test_ours_to_the_qformer_by_hand(comparison):
    ours, qformer, _ = comparison.arms
    found = time_to_quality(ours, qformer, LOSS, "val")
    by_seed = {each["seed"]: each for each in found["seeds"]}
    # 0.8 lies half way between 1.0 at step 50 and 0.6 at step 75; 0.7 three quarters of the way; 1.0 on a point
    assert {seed: each["steps"] for seed, each in by_seed.items()} == pytest.approx({42: 62.5, 43: 50, 44: 68.75})
    first = by_seed[42]
    assert (first["wanted"], first["best"], first["reached"], first["at_most"]) == (0.8, 0.4, True, False)
    assert [first[key] for key in ("images", "seconds", "seconds_logged")] == pytest.approx([500, 62.5, 78.125])
    assert (first["share"], first["share_logged"]) == pytest.approx((62.5 / 200, 78.125 / 250))
    assert (found["compared"], found["reached"], found["share"]["n"]) == (3, 3, 3)
    assert found["share"]["mean"] == pytest.approx((0.3125 + 0.25 + 0.34375) / 3)
    assert (found["share"]["min"], found["share"]["max"]) == pytest.approx((0.25, 0.34375))


def test_both_stages_count_and_unfinished_runs_do_not(comparison):
    ours, qformer, two_stage = comparison.arms
    found = time_to_quality(two_stage, qformer, LOSS, "val")
    assert [each["seed"] for each in found["seeds"]] == [42, 44]
    assert (found["compared"], found["reached"]) == (2, 1)
    assert found["seeds"][0]["seconds"] == 400 and found["seeds"][0]["share"] == 2.0
    assert found["seeds"][1] == {"seed": 44, "wanted": 0.7, "best": 0.9, "reached": False}
    found = time_to_quality(ours, two_stage, LOSS, "val")
    assert [each["steps"] for each in found["seeds"]] == pytest.approx([62.5, 56.25])
    assert [each["share"] for each in found["seeds"]] == pytest.approx([62.5 / 400, 56.25 / 400])


def test_logged_seconds_do_not_move_the_share(tmp_path, comparison):
    def slow(found):
        for run in found["arms"][1]["runs"]:
            for point in run["curve"]:
                point["seconds"] *= 3
            run["final"]["seconds"] *= 3

    slower = changed(tmp_path, slow)
    before, after = (time_to_quality(*each.arms[:2], LOSS, "val") for each in (comparison, slower))
    assert after["share"] == before["share"]
    assert after["share_logged"]["mean"] == pytest.approx(before["share_logged"]["mean"] / 3)


def test_scores_are_reached_from_below(comparison):
    ours, qformer, two_stage = comparison.arms
    found = time_to_quality(ours, qformer, CIDER, "val")
    assert [each["steps"] for each in found["seeds"]] == [75, 75, 75]  # 4.0 half way from 2.0 to 6.0
    found = time_to_quality(two_stage, qformer, CIDER, "val")
    assert [(each["steps"], each["at_most"]) for each in found["seeds"]] == [(125, True), (125, True)]
    found = time_to_quality(ours, two_stage, CIDER, "val")
    assert (found["reached"], found["share"]) == (0, None)
    assert [each["best"] for each in found["seeds"]] == [6.0, 6.0]


def test_an_arm_that_stops_to_improve_had_its_own_quality_before_its_end(tmp_path, comparison):
    ours = comparison.arms[0]
    assert time_to_quality(ours, ours, LOSS, "val")["share"]["mean"] == 1.0

    def flat(found):
        for run in found["arms"][0]["runs"]:
            run["curve"][2]["held_out_loss"] = 0.4

    ours = changed(tmp_path, flat).arms[0]
    assert time_to_quality(ours, ours, LOSS, "val")["share"]["mean"] == 0.75


def test_spreads():
    assert spread([1.0, None, 3.0]) == {"mean": 2.0, "sd": pytest.approx(2**0.5), "min": 1.0, "max": 3.0, "n": 2}
    assert spread([4.0]) == {"mean": 4.0, "sd": None, "min": 4.0, "max": 4.0, "n": 1}
    assert spread([None]) is None


def test_final_figures_are_those_of_finished_seeds(comparison):
    found = figures(comparison)
    ours, qformer, two_stage = found["arms"].values()
    assert qformer["final"][LOSS] == pytest.approx(
        {"mean": 2.5 / 3, "sd": 0.152753, "min": 0.7, "max": 1.0, "n": 3}, abs=1e-6
    )
    assert ours["final"]["gap"]["mean"] == pytest.approx(1.5)
    assert ours["final"]["test.CIDEr"]["mean"] == 6.0 and ours["final"]["test_unseen.named_right"]["mean"] == 0.0
    assert (two_stage["seeds"], two_stage["unfinished"]) == ([42, 44], [{"seed": 43, "steps": 125}])
    assert (ours["seconds"], ours["seconds_logged"]["mean"], two_stage["seconds"]) == (100.0, 125.0, 400.0)
    assert len(found["to_quality"]) == 2 * 3 * 3
    assert metrics(comparison) == [LOSS, CIDER] and reference(comparison).name == "qformer"


def test_seeds_that_have_not_begun_are_unfinished_too(tmp_path):
    found = figures(changed(tmp_path, lambda found: found["seeds"].append(45)))
    assert found["arms"]["ours"]["unfinished"] == [{"seed": 45, "steps": 0}]


def test_a_reference_that_took_no_part_gives_way_to_the_first_arm(tmp_path):
    assert reference(changed(tmp_path, lambda found: found.update(reference="linear"))).name == "ours"


def test_the_figures_do_not_depend_on_the_order_of_arms_and_runs(tmp_path, comparison):
    def turned(found):
        found["arms"].reverse()
        for arm in found["arms"]:
            arm["runs"].reverse()

    def by_pair(found):
        entries = copy.deepcopy(found["to_quality"])
        for each in entries:
            each["seeds"].sort(key=lambda seed: seed["seed"])
        return {(each["arm"], each["of"], each["metric"]): each["seeds"] for each in entries}

    assert by_pair(figures(changed(tmp_path, turned))) == by_pair(figures(comparison))

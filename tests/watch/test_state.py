"""Records of a log, folded into what a run looks like."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_evlgen.watch.series import MOST, Series
from lavis_evlgen.watch.state import RunState


def state_of(*records: dict[str, Any]) -> RunState:
    state = RunState()
    for record in records:
        state.add(record)
    return state


def test_figures_of_steps_and_checks():
    state = state_of(
        {"iters": 0, "feature_seconds": 3.0},
        {"iters": 5, "loss": 2.0, "lr": 0.1, "seconds": 10.0},
        {"iters": 10, "loss": 1.0, "lr": 0.2, "seconds": 20.0},
        {"iters": 10, "held_out_loss": 1.5, "shuffled_loss": 2.5, "gap": 1.0},
        {"iters": 15, "loss": None, "lr": 0.2, "seconds": 30.0, "nan_steps": 2, "bad_samples": 0},
    )
    assert state.step == 15 and state.health_step == 10
    assert state.curves["loss"].points() == [(5.0, 2.0), (10.0, 1.0)] and state.curves["gap"].last == 1.0
    assert state.step_seconds == 4.0 and state.record_seconds == 20.0
    assert state.curves["prompt_diversity"].last is None and state.totals == {"nan_steps": 2, "bad_samples": 0}


def test_evaluations_and_the_best_of_each_split():
    state = state_of(
        {"iters": 10, "state": "evaluating", "what": "val"},
        {"iters": 10, "split": "val", "agg_metrics": 1.0},
        {"iters": 20, "split": "val", "agg_metrics": 3.0},
        {"iters": 30, "split": "val", "agg_metrics": 3.0, "CIDEr": 2.0},
        {"iters": 30, "split": "test", "agg_metrics": None},
    )
    assert state.best == {"val": (3.0, 20)} and state.evaluations["val"]["CIDEr"] == 2.0
    assert state.evaluating == "" and list(state.evaluations) == ["val", "test"]


def test_phases_and_warnings():
    state = state_of(
        {"iters": 0, "state": "started", "max_iters": 50, "pid": 3},
        {"iters": 8, "warning": "look"},
        {"iters": 8, "state": "stopped", "why": "told"},
        {"iters": 8, "state": "started", "max_iters": 60, "pid": 4},
        {"iters": 9, "state": "evaluating", "what": "val"},
    )
    assert (state.starts, state.max_iters, state.phase["pid"]) == (2, 60, 4)
    assert state.evaluating == "val" and list(state.warnings) == [(8, "look")] and state.step == 0
    state.add({"iters": 10, "state": "finished"})
    assert state.phase["state"] == "finished" and state.max_iters == 60 and state.evaluating == ""


values = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.lists(st.integers(), max_size=2)
)
keys = st.sampled_from(
    ["iters", "loss", "seconds", "state", "what", "warning", "split", "agg_metrics", "gap", "nan_steps"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(keys, values, max_size=6), max_size=12))
def test_no_record_breaks_it(records):
    state = state_of(*records)
    assert state.step_seconds is None or isinstance(state.step_seconds, float)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3 * MOST))
def test_a_series_stays_small_and_in_order(count):
    series = Series()
    for step in range(count):
        series.add(step, float(step % 7))
    points = series.points()
    assert min(count, MOST // 2) <= len(points) <= MOST
    assert [x for x, _ in points] == sorted({x for x, _ in points})
    if count < MOST:
        assert points == [(float(step), float(step % 7)) for step in range(count)]


@pytest.mark.parametrize("count", [MOST, 2 * MOST, 8 * MOST])
def test_points_of_equal_weight_keep_the_mean(count):
    series = Series()
    for step in range(count):
        series.add(step, float(step % 7))
    points = series.points()
    assert sum(y for _, y in points) / len(points) == pytest.approx(sum(step % 7 for step in range(count)) / count)


def test_a_series_averages_neighbours_of_equal_number():
    series = Series()
    for step in range(MOST + 2):
        series.add(step, 2.0 * step)
    assert series.points()[0] == (0.5, 1.0) and series.points()[-1] == (MOST + 0.5, 2 * MOST + 1.0)
    assert len(series.points()) == MOST // 2 + 1 and series.last == 2.0 * (MOST + 1)

"""Reading comparison.json: what is right becomes values, what is wrong is named."""

import json
import math

import pytest
from reports.comparison_example import document, write

from lavis_evlgen.errors import DataError
from lavis_evlgen.reports.comparison.file import holds_comparison, read_comparison


def change(found, path, value):
    """Set the value at a path of keys and indices, or delete it (value `del`)."""
    for key in path[:-1]:
        found = found[key]
    if value is del_:
        del found[path[-1]]
    else:
        found[path[-1]] = value


del_ = object()
POINT = ("arms", 0, "runs", 1, "curve", 2)


def test_a_comparison_is_read_with_its_types(tmp_path):
    comparison = read_comparison(write(tmp_path))
    ours, qformer, two_stage = comparison.arms
    assert (comparison.name, comparison.seeds, comparison.reference) == ("compare_demo", (42, 43, 44), "qformer")
    assert (ours.title, ours.overrides, two_stage.group) == ("EVLGen, ours", ("model.tome_r=[128, 64]",), "baselines")
    assert [arm.steps for arm in comparison.arms] == [100, 100, 150]
    assert [two_stage.captions(stage) for stage in (1, 2)] == [False, True]
    assert [[run.seed for run, _ in arm.finished] for arm in comparison.arms] == [[42, 43, 44], [42, 43, 44], [42, 44]]
    point = ours.runs[1].curve[2]
    assert (point.stage, point.step, point.images, point.seconds) == (1, 75, 600, 93.75)
    assert (point.loss, point.held_out_loss, point.shuffled_loss) == (None, 0.6, 2.1)
    assert two_stage.runs[1].final is None and two_stage.runs[0].final.seconds == 500.0
    assert comparison.claims[0].share_of_time == 0.45 and comparison.claims[2].share_of_time is None
    assert comparison.claims[3].share_of_time == 3.0 and isinstance(comparison.claims[3].share_of_time, float)
    assert comparison.arm("linear") is None and comparison.title("linear") == "linear"
    assert comparison.title("qformer") == qformer.title == "Q-Former"


def test_the_last_stage_captions_even_if_its_tokens_are_not_known(tmp_path):
    found = document()
    change(found, ("arms", 0, "stages", 0, "soft_prompt_tokens"), None)
    assert read_comparison(write(tmp_path, found)).arms[0].captions(1)


def test_the_validation_split_is_val_or_the_one_evaluated_first(tmp_path):
    assert read_comparison(write(tmp_path)).validation_split == "val"
    found = json.loads(json.dumps(document()).replace('"split": "val", "scores"', '"split": "held out", "scores"'))
    assert read_comparison(write(tmp_path, found)).validation_split == "held out"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("arms", 0, "runs", 1, "curve", 2, "images"), del_, "arms[0].runs[1].curve[2].images is missing"),
        ((*POINT, "loss"), 10**400, "curve[2].loss is a number of too many digits"),
        ((*POINT, "step"), 2**63, "curve[2].step is a number of too many digits"),
        (("claims",), del_, "claims is missing"),
        (("setting", "precision"), del_, "setting.precision is missing"),
        ((*POINT, "seconds"), "long", "arms[0].runs[1].curve[2].seconds is 'long', expected a number"),
        ((*POINT, "step"), 75.5, "curve[2].step is 75.5, expected a whole number"),
        ((*POINT, "step"), True, "curve[2].step is True, expected a whole number"),
        ((*POINT, "step"), 40, "arms[0].runs[1].curve[2].step is 40, after 50: order them by step"),
        ((*POINT, "stage"), 2, "arms[0].runs[1].curve[2].stage is 2, the arm has 1"),
        ((*POINT, "held_out_loss"), math.nan, "curve[2].held_out_loss is nan; a value that is not known is null"),
        ((*POINT, "held_out_loss"), math.inf, "curve[2].held_out_loss is inf"),
        (("arms",), [], "arms is empty"),
        (("arms", 1, "stages"), [], "arms[1].stages (qformer) is empty"),
        (("arms", 1, "name"), "ours", "two are called 'ours'"),
        (("arms", 1, "runs", 0, "final"), None, "arms[1].runs[0].final is null though the run is finished"),
        (("arms", 1, "runs"), {}, "arms[1].runs is {}, expected a list"),
        (("arms", 0, "runs", 0, "final", "scores", "test", "CIDEr"), "6", "final.scores.test.CIDEr is '6'"),
        (("tuning", "scores", "ours"), 3, "tuning.scores.ours is 3, expected an object"),
        (("format",), 2, "no comparison of format 1: its `format` is 2"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, path, value, message):
    found = document()
    change(found, path, value)
    with pytest.raises(DataError) as error:
        read_comparison(write(tmp_path, found))
    assert message in str(error.value) and str(tmp_path / "comparison.json") in str(error.value)


def test_files_that_are_no_comparison(tmp_path):
    assert not holds_comparison(tmp_path)
    with pytest.raises(DataError, match=r"comparison.json cannot be read \(No such file"):
        read_comparison(tmp_path)
    (tmp_path / "comparison.json").write_text('{"format": 1, ')
    assert holds_comparison(tmp_path)
    with pytest.raises(DataError, match="is no JSON"):
        read_comparison(tmp_path)
    (tmp_path / "comparison.json").write_text("[1]")
    with pytest.raises(DataError, match="its `format` is None"):
        read_comparison(tmp_path / "comparison.json")

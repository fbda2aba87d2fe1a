"""When the signs of trouble appear, what they say, and that a resumed run does not say it again."""

import json

import pytest

from lavis_evlgen.runners.verdict import Verdict

NONE = {"gap": 0.01}
GOOD = {"gap": 0.8}


def noted(verdict: Verdict, *checks: dict, first: int = 10) -> list[list[str]]:
    return [verdict.note(first + number, figures) for number, figures in enumerate(checks)]


def test_two_checks_in_a_row_make_a_sign_and_it_is_told_once():
    verdict = Verdict(warmup=0)
    found = noted(verdict, NONE, GOOD, NONE, NONE, NONE, NONE)
    assert [len(texts) for texts in found] == [0, 0, 0, 1, 0, 0]
    assert found[3][0].startswith("step 13: held-out loss is the same with wrong pictures (gap 0.010 nats, 2 checks")
    assert verdict.signs == ["ignored"]


def test_it_is_told_anew_when_it_went_in_between():
    verdict = Verdict(warmup=0)
    found = noted(verdict, NONE, NONE, GOOD, NONE, GOOD, GOOD, NONE, NONE)
    assert [len(texts) for texts in found] == [0, 1, 0, 0, 0, 0, 0, 1]


def test_nothing_is_judged_before_the_end_of_the_warmup():
    verdict = Verdict(warmup=12)
    assert [len(texts) for texts in noted(verdict, NONE, NONE, NONE, NONE)] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("more", "said", "unsaid"),
    [
        ({}, "too few steps so far", "soft prompt"),
        ({"prompt_diversity": 4e-5}, "nearly the same soft prompt for every picture (prompt_diversity 4e-05)", "%"),
        ({"prompt_diversity": 0.3}, "do differ from picture to picture (prompt_diversity 0.3)", "run.init_lr"),
        ({"repeated_captions": 0.9}, "Of the validation captions 90% are those of other pictures too", "soft prompt"),
        ({"repeated_captions": 0.9, "repeated_references": 0.8}, "too few steps so far", "90%"),
    ],
)
def test_the_other_figures_explain_why_pictures_are_ignored(more, said, unsaid):
    (*_, texts) = noted(Verdict(0), NONE, {**NONE, **more})
    assert said in texts[0] and unsaid not in texts[0]


def test_figures_of_validations_explain_later_checks():
    (*_, texts) = noted(Verdict(0), {"repeated_captions": 0.9}, NONE, NONE)
    assert "90% are those of other pictures" in texts[0]


def test_repeated_captions_are_held_against_the_references():
    alike = {"repeated_captions": 0.7, "repeated_references": 0.3}
    assert noted(Verdict(0), alike, alike) == [[], []]
    worse = {**alike, "repeated_captions": 0.9}
    (*_, texts) = noted(Verdict(0), GOOD, worse, worse)
    assert texts[0].startswith(
        "step 12: 90% of the validation captions are those of other pictures too (of the referen"
    )
    assert "usual early in training" in texts[0]
    (*_, texts) = noted(Verdict(0), NONE, worse, worse)
    assert "It does not look at them" in texts[0]


def test_captions_that_run_in_circles():
    verdict = Verdict(0)
    (*_, texts) = noted(verdict, {"repeated_ngrams": 0.5}, {"repeated_ngrams": 0.4})
    assert texts[0].startswith("step 11: 40% of the word triples") and "run.repetition_penalty" in texts[0]
    assert verdict.signs == ["looping"]


def test_a_resumed_run_goes_on_counting_and_does_not_repeat_itself():
    before = Verdict(0)
    noted(before, NONE)
    after = Verdict(0)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert len(after.note(11, NONE)) == 1
    again = Verdict(0)
    again.load_state_dict(after.state_dict())
    assert noted(again, NONE, NONE, NONE) == [[], [], []] and again.signs == ["ignored"]
    again.load_state_dict({})
    assert again.signs == [] and again.state_dict() == Verdict(0).state_dict()

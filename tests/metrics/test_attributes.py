from types import SimpleNamespace

import pytest

from lavis_evlgen.metrics.attributes import attribute_scores, contains


def record(image_id: str, **extras) -> SimpleNamespace:
    return SimpleNamespace(image_id=image_id, extras=extras)


def test_shares_of_captions_that_say_what_the_record_knows():
    records = [
        record("1", things=["cat"], size="small", background="red"),
        record("2", things=["fire engine", "dog"], size="large", background="red"),
        record("3", things="T-Rex", size="large"),
        record("4", things=["owl"], size="large"),
        record("not captioned", things=["bee"], size="small"),
    ]
    captions = {
        "1": "a small cat on blue",
        "2": "a Fire  engine beside a dog on red",
        "3": "a small t-rex",
        "4": "large owls",
    }
    assert attribute_scores(records, captions) == {
        "named_right": pytest.approx(3 / 4),
        "size_right": pytest.approx(2 / 4),
        "background_right": pytest.approx(1 / 2),
    }


def test_other_attributes_can_be_named_and_unusable_ones_are_left_out():
    records = [record("1", mood="happy", size="small", things=[], place=3, number=4)]
    assert attribute_scores(records, {"1": "a happy cat"}, ["mood", "number", "place"]) == {"mood_right": 1.0}
    assert attribute_scores([], {"1": "a cat"}) == {}


@pytest.mark.parametrize(
    ("caption", "words", "expected"),
    [("a cat.", "cat", True), ("a catfish", "cat", False), ("the engine fire", "fire engine", False)],
)
def test_contains_whole_words_in_order(caption, words, expected):
    assert contains(caption, words) is expected


def test_a_longer_name_hides_the_shorter_one_inside_it():
    records = [record("1", things=["dog"]), record("2", things=["hot dog"]), record("3", things=["dog", "hot dog"])]
    captions = {"1": "a hot dog on red", "2": "a hot dog on red", "3": "a dog beside a hot dog"}
    assert attribute_scores(records, captions) == {"named_right": pytest.approx(2 / 3)}

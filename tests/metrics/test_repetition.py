"""Repetition of captions, by hand-counted examples."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_evlgen.metrics.repetition import repeated_ngrams, repeated_share, repetition


def test_repeated_share_counts_every_text_that_has_a_double():
    assert repeated_share(["a cat", "A cat.", "a dog", "a bird", "a  cat"]) == 0.6
    assert repeated_share(["one", "two"]) == 0.0
    assert repeated_share(["", "", "a"]) == pytest.approx(2 / 3)
    assert repeated_share([]) == 0.0


def test_repeated_ngrams_counts_triples_of_the_same_text_only():
    # a dog a | dog a dog | a dog a: the third stood before
    assert repeated_ngrams(["a dog a dog a"]) == pytest.approx(1 / 3)
    assert repeated_ngrams(["red red red red red red"]) == pytest.approx(3 / 4)
    assert repeated_ngrams(["a man on a bench", "a man on a bench"]) == 0.0
    assert repeated_ngrams(["a dog a dog a", "a cat sits down here"]) == pytest.approx(1 / 6)
    assert repeated_ngrams(["a cat", ""]) == 0.0
    assert repeated_ngrams(["a b a b"], n=2) == pytest.approx(1 / 3)


def test_references_are_measured_for_the_same_pictures():
    captions = {"1": "a thing", "2": "a thing", "3": "a thing", "4": "a cat"}
    references = {"1": ["a cat", "a pet"], "2": ["a dog"], "3": ["a cat"], "9": ["a dog"]}
    assert repetition(captions, references) == {
        "repeated_captions": 0.75,
        "repeated_references": pytest.approx(2 / 3),
        "repeated_ngrams": 0.0,
    }


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab ", max_size=8)))
def test_shares_are_shares_and_doubling_the_texts_repeats_all(texts):
    assert 0.0 <= repeated_share(texts) <= 1.0 and 0.0 <= repeated_ngrams(texts) < 1.0
    assert repeated_share([*texts, *texts]) == (1.0 if texts else 0.0)
    assert repeated_ngrams([*texts, *texts]) == pytest.approx(repeated_ngrams(texts))

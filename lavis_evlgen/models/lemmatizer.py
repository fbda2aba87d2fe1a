"""Answers to their base forms, as OK-VQA's evaluation expects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from lavis_evlgen.errors import WeightsError


def lemmatize(answers: Sequence[str]) -> list[str]:
    """Nouns and verbs of every answer by their lemma, as LAVIS does it with spaCy's small English model.

    Raises:
        WeightsError: the spaCy model is not installed.
    """
    nlp = _english()
    return [
        " ".join(token.lemma_ if token.pos_ in ("NOUN", "VERB") else token.text for token in nlp(answer))
        for answer in answers
    ]


@lru_cache(maxsize=1)
def _english() -> Any:
    import spacy

    try:
        return spacy.load("en_core_web_sm")
    except OSError as error:
        raise WeightsError(
            "apply_lemmatizer: spaCy's model en_core_web_sm is not installed; install it "
            "(python -m spacy download en_core_web_sm) or set apply_lemmatizer: false"
        ) from error

"""Answers to their base forms, as OK-VQA's annotators' answers are given.

LAVIS tags words with spaCy's small English model, which has to be downloaded, and replaces nouns and verbs by their
lemmas. TextBlob's tagger (Brill's, with its lexicon) and LemmInflect's dictionary come inside their packages. Known
differences from spaCy: a word without context gets its most frequent tag, so that "leaves" becomes "leave" and "left"
"leave"; punctuation stays where it was instead of being split off, which VQA's normalisation makes equal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W\d_]+")
_CLASSES = {"N": "NOUN", "V": "VERB"}


def lemmatize(answers: Sequence[str]) -> list[str]:
    """Nouns and verbs of every answer by their lemma, other words as they are."""
    return [_lemmatize(answer) for answer in answers]


def _lemmatize(answer: str) -> str:
    from textblob.en import tag

    words = _WORD.findall(answer)
    # proper names are tagged by their capital letters, as annotators seldom write them
    tags = iter(tag(" ".join(words), tokenize=False))
    return _WORD.sub(lambda word: _lemma(word.group(), next(tags)[1]), answer)


def _lemma(word: str, tag: str) -> str:
    """The lemma of a common noun or a verb; LemmInflect's rules serve words that its dictionary lacks."""
    from lemminflect import getAllLemmas, getAllLemmasOOV

    upos = _CLASSES.get(tag[:1])
    if upos is None or tag.startswith("NNP"):
        return word
    known = getAllLemmas(word.lower())
    # the dictionary has no noun "skiing", only the verb
    found = known.get(upos) or known.get("VERB") or known.get("NOUN") or getAllLemmasOOV(word.lower(), upos)[upos]
    return found[0]

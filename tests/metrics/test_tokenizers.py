import random
import shutil

import pytest

from lavis_evlgen.errors import ConfigError, EvlgenError
from lavis_evlgen.metrics import tokenizers
from lavis_evlgen.metrics.tokenizers import JAVA_FREE, PTB, choose_tokenizer, java_free_tokens, tokenize

needs_java = pytest.mark.skipif(not shutil.which("java"), reason="no Java on this machine: PTB cannot be compared")

SUBJECTS = (
    "a man", "Two dogs", "the boy's father", "An old woman (in red)", "U.S. soldiers", "Mr. Smith", "3 people",
    "a double-decker bus", "Children's toys", "someone who isn't here", "a black-and-white cat", "St. Mary's church",
    "the dogs' owner", "a T-shirt reading \"STOP\"", "They're players who", "a 2-story building", "D.C. tourists",
)  # fmt: skip
VERBS = (
    "is riding a horse", "can't stop; won't stop", "sits, stands and waits", "plays with a ball - a red one -",
    "looks at the clock: 12:30", "eats half of a $5 pizza", "flies at 10,000 ft. above the sea", "cannot be seen",
    "is gonna jump!", "holds a sign saying 'I love NY'", "stands next to rock & roll stars", "is 50% covered with snow",
    "watches cars/trucks go by", "walks at 5 p.m. on Monday", "skates… or falls",
)  # fmt: skip
PLACES = (
    "on the beach.", "in the park, near a bench", "at the station?", "in front of a building (brick)", "outdoors!",
    "in the snow. It is cold.", "by the sea. The sky is blue. Nobody cares", "[at night]", "-- somewhere", "etc. etc.",
    "under a tree, a bush, etc. in autumn", "over there; far away.", "in a café", "“at home”", "– on the left –",
)  # fmt: skip


def sentences(count: int) -> list[str]:
    rng = random.Random(0)
    return [f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(PLACES)}" for _ in range(count)]


@needs_java
def test_the_java_free_tokens_are_ptbs_on_varied_sentences():
    texts = sentences(600)
    assert len(set(texts)) > 500
    captions = {str(number): [text] for number, text in enumerate(texts)}
    ptb, free = tokenize(captions, PTB), tokenize(captions, JAVA_FREE)
    different = [(texts[int(key)], ptb[key][0], free[key][0]) for key in captions if ptb[key] != free[key]]
    assert len(different) <= 0.01 * len(texts), different[:5]


@needs_java
def test_line_breaks_and_empty_captions_do_not_shift_ptbs_lines():
    captions = {"a": ["one\ncat\u2028sits", ""], "b": [" \r\n ", "two dogs"], "c": [""]}
    expected = {"a": ["one cat sits", ""], "b": ["", "two dogs"], "c": [""]}
    assert tokenize(captions, PTB) == tokenize(captions, JAVA_FREE) == expected


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man's dog -- isn't it?", "a man 's dog is n't it"),
        ("One cat. Two dogs.", "one cat two dogs"),
        ("Mr. Smith (left) at 5 p.m.", "mr. smith -lrb- left -rrb- at 5 p.m."),
        ("a “black-and-white” cat…", "a black-and-white cat"),
        ("He says no. House no. 5 it is, etc.", "he says no house no. 5 it is etc."),
        ("", ""),
    ],
)
def test_java_free_tokens(text, tokens):
    assert java_free_tokens(text) == tokens


def test_the_choice_of_tokenizer(monkeypatch):
    monkeypatch.setattr(tokenizers.shutil, "which", lambda name: "/usr/bin/java")
    assert (choose_tokenizer("auto"), choose_tokenizer("java_free")) == (PTB, JAVA_FREE)
    monkeypatch.setattr(tokenizers.shutil, "which", lambda name: None)
    assert choose_tokenizer("auto") == JAVA_FREE
    with pytest.raises(ConfigError, match="ptb needs `java`"):
        choose_tokenizer("ptb")
    with pytest.raises(ConfigError, match="'spacy' is unknown; use auto, ptb, java_free"):
        choose_tokenizer("spacy")


def test_a_java_that_fails_is_an_error_and_not_a_score(monkeypatch, tmp_path):
    (tmp_path / "java").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(EvlgenError, match="java_free"):
        tokenize({"a": ["one cat", "two"], "b": ["a dog"]}, PTB)

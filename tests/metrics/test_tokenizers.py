import gzip
import random
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

from lavis_evlgen.errors import ConfigError, EvlgenError
from lavis_evlgen.metrics import tokenizers
from lavis_evlgen.metrics.ptb_lexer import ptb_tokens
from lavis_evlgen.metrics.tokenizers import JAVA_FREE, PTB, choose_tokenizer, java_free_tokens, tokenize

needs_java = pytest.mark.skipif(not shutil.which("java"), reason="no Java on this machine: PTB cannot be compared")

FIXTURES = Path(__file__).parent.parent / "fixtures"

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


def different(texts: list[str]) -> list[tuple[str, str, str]]:
    """(text, PTB's tokens, Java-free tokens) where the two are not the same."""
    captions = {str(number): [text] for number, text in enumerate(texts)}
    ptb, free = tokenize(captions, PTB), tokenize(captions, JAVA_FREE)
    return [(texts[int(key)], ptb[key][0], free[key][0]) for key in captions if ptb[key][0] != free[key][0]]


@needs_java
def test_the_java_free_tokens_are_ptbs_on_varied_sentences():
    texts = sentences(600)
    assert len(set(texts)) > 500
    assert different(texts) == []


@needs_java
def test_the_java_free_tokens_are_ptbs_on_thirteen_thousand_real_sentences():
    """Example sentences and definitions of WordNet; benchmarks/caption_tokens.py lists what differs."""
    texts = gzip.decompress((FIXTURES / "sentences" / "wordnet.txt.gz").read_bytes()).decode().splitlines()
    assert len(set(texts)) > 13_000
    assert len(different(texts)) <= 5


@needs_java
def test_line_breaks_and_empty_captions_do_not_shift_ptbs_lines():
    captions = {"a": ["one\ncat\u2028sits", ""], "b": [" \r\n ", "two dogs"], "c": [""]}
    expected = {"a": ["one cat sits", ""], "b": ["", "two dogs"], "c": [""]}
    assert tokenize(captions, PTB) == tokenize(captions, JAVA_FREE) == expected


TOKENS = {
    "A man's dog -- isn't it?": "a man 's dog is n't it",
    "One cat. Two dogs.": "one cat two dogs",
    "Mr. Smith (left) at 5 p.m.": "mr. smith -lrb- left -rrb- at 5 p.m.",
    "a “black-and-white” cat…": "a black-and-white cat",
    "He says no. House no. 5 it is, etc.": "he says no house no. 5 it is etc.",
    '"He left." Then (at home.) she came': "he left then -lrb- at home -rrb- she came",
    "We can't, cannot, won't; they're gonna gimme it, y'all": (
        "we ca n't can not wo n't they 're gon na gim me it y' all"
    ),
    "bull's-eye, the dogs' toys, rock'n'roll for 'em in the '90s": (
        "bull 's eye the dogs toys rock 'n' roll for 'em in the '90s"
    ),
    "yellow- and red-striped, pre-war - and -after": "yellow and red-striped pre-war and after",
    "wow!! what?! really": "wow !! what ?! really",
    "a 6'4\" man at 12:30pm, 5:30 p.m., 3pm, in 1/2 hour": "a 6 4 man at 12:30 pm 5:30 p.m. 3pm in 1/2 hour",
    "$1.50, €10, £5, 50¢, 100%, 3.5-inch, ½ a mile": "$ 1.50 $ 10 # 5 50 cents 100 % 3.5-inch 1/2 a mile",
    "#sunset @me #42 at me@x.com, www.a-b.com or dog.jpg": "#sunset @me # 42 at me@x.com, www.a-b.com or dog.jpg",
    "a man w/ a hat w/o shoes and/or a tie/scarf": "a man w / a hat w/o shoes and/or a tie/scarf",
    "AT&T, B&W, salt & pepper, black&white": "at&t b&w salt & pepper black & white",
    "U.S. flag in Washington, D.C. on Jan. 5 (etc.)": "u.s. flag in washington d.c. on jan. 5 -lrb- etc. -rrb-",
    "plan C. It is Malcolm X. Jones": "plan c it is malcolm x. jones",
    ":-) :( <3 dog🐶": ":--rrb- :-lrb- < 3 dog",
    "O'Brien's o'clock, 2 x 4 = 8, C++": "o'brien 's o'clock 2 x 4 = 8 c++",
    "": "",
}


@pytest.mark.parametrize("text", TOKENS)
def test_java_free_tokens(text):
    assert java_free_tokens(text) == TOKENS[text]


@needs_java
def test_these_are_ptbs_tokens():
    assert list(tokenize({"all": list(TOKENS)}, PTB)["all"]) == list(TOKENS.values())


@given(st.text(max_size=80))
def test_any_text_has_tokens_without_punctuation_and_spaces(text):
    tokens = ptb_tokens(text)
    assert not set(tokens) & set(PUNCTUATIONS)
    assert all(token == token.lower() and token.strip() and " " not in token for token in tokens)


def test_long_nonsense_is_read_in_no_time():
    """A model that repeats itself must not hang the evaluation."""
    start = time.process_time()
    for text in ("a" * 20_000, "ha-" * 7_000, "a.b." * 5_000, "'n'" * 7_000, "1/2-" * 5_000, "((:" * 7_000):
        assert ptb_tokens(text)
    assert time.process_time() - start < 10


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

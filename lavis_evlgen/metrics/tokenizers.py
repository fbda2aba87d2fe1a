"""Captions as the space-separated lower-case tokens that caption metrics count: PTB's with Java, or alike without."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from nltk.tokenize import NLTKWordTokenizer
from pycocoevalcap.tokenizer import ptbtokenizer
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, PTBTokenizer

from lavis_evlgen.errors import ConfigError, EvlgenError

Captions = dict[str, list[str]]

PTB = "PTB (Java)"
JAVA_FREE = "treebank (no Java)"
CHOICES = {"auto": None, "ptb": PTB, "java_free": JAVA_FREE}

_TYPOGRAPHIC = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": " -- ", "\u2014": " -- ", "\u2026": " ... "}
)
# PTB keeps the full stop of these with the word, and splits that of other words at the end of each sentence
_ABBREVIATION = (
    r"(?:mr|mrs|ms|dr|st|vs|etc|jr|sr|prof|gen|rep|sen|gov|capt|lt|col|sgt|ave|blvd|rd|ft|mt|inc|ltd|co|corp|dept"
    r"|no(?=\.\s\d)|\w(?:\.\w)+)\."
)
_FULL_STOP = re.compile(rf"(?<![\w.])(?!{_ABBREVIATION})(\w[\w'/-]+)\.(?=\s)")
_ENDS_ABBREVIATED = re.compile(rf"(?:^|\W){_ABBREVIATION}$")


def java() -> bool:
    """Whether the PTB tokenizer can run: there is a ``java``, and it may write into pycocoevalcap's folder."""
    return shutil.which("java") is not None and os.access(Path(ptbtokenizer.__file__).parent, os.W_OK)


def choose_tokenizer(choice: str) -> str:
    """The tokenizer's full name, ``PTB`` or ``JAVA_FREE``, for ``auto`` | ``ptb`` | ``java_free``.

    Raises:
        ConfigError: an unknown choice, or ``ptb`` without Java.
    """
    if choice not in CHOICES:
        raise ConfigError(f"metrics_tokenizer: {choice!r} is unknown; use {', '.join(CHOICES)}")
    if choice == "ptb" and not java():
        raise ConfigError(
            "metrics_tokenizer: ptb needs `java` on the PATH and write access to pycocoevalcap's folder; "
            "install a Java runtime or use java_free"
        )
    return CHOICES[choice] or (PTB if java() else JAVA_FREE)


def tokenize(captions: Mapping[str, Sequence[str]], tokenizer: str) -> Captions:
    """Tokenized captions by id; PTB's punctuation is removed. Raises EvlgenError when Java fails."""
    # one line each: PTB reads lines, and an empty one would shift all that follow
    lines = {key: [" ".join(text.split()) or "." for text in texts] for key, texts in captions.items()}
    if tokenizer != PTB:
        return {key: [java_free_tokens(text) for text in texts] for key, texts in lines.items()}
    tokens = PTBTokenizer().tokenize({key: [{"caption": text} for text in texts] for key, texts in lines.items()})
    if {key: len(texts) for key, texts in tokens.items()} != {key: len(texts) for key, texts in lines.items()}:
        raise EvlgenError("Java's PTB tokenizer failed (see its message above); use metrics_tokenizer: java_free")
    return tokens


def java_free_tokens(text: str) -> str:
    """Treebank tokens of one caption as PTB's tokenizer (``-preserveLines -lowerCase``) gives them, joined by spaces.

    NLTK's rules split every full stop at the end of the text and no other one; PTB splits those of sentences and
    keeps those of abbreviations, wherever they stand. Brackets become "-lrb-" and the like, which pycocoevalcap's
    upper-case list of punctuation lets through: they stay here too.
    """
    text = _FULL_STOP.sub(r"\1 . ", text.lower().translate(_TYPOGRAPHIC))
    if _ENDS_ABBREVIATED.search(text):
        text += " ."  # takes the part of the full stop that ends the text
    tokens = (token.lower() for token in NLTKWordTokenizer().tokenize(text, convert_parentheses=True))
    return " ".join(token for token in tokens if token not in PUNCTUATIONS)

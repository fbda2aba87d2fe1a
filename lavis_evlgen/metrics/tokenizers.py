"""Captions as the space-separated lower-case tokens that caption metrics count: PTB's with Java, or alike without."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pycocoevalcap.tokenizer import ptbtokenizer
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from lavis_evlgen.errors import ConfigError, EvlgenError
from lavis_evlgen.metrics.ptb_lexer import ptb_tokens

Captions = dict[str, list[str]]

PTB = "PTB (Java)"
JAVA_FREE = "treebank (no Java)"
CHOICES = {"auto": None, "ptb": PTB, "java_free": JAVA_FREE}


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
    """One caption's tokens as PTB's tokenizer gives them (see :mod:`ptb_lexer`), joined by spaces."""
    return " ".join(ptb_tokens(text))

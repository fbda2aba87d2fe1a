"""Errors that a user can act on: each names the file, key or value and the way out."""

import difflib
from collections.abc import Iterable


class EvlgenError(Exception):
    """Base of all errors that this package raises on purpose; launchers print them without a stack trace."""


class ConfigError(EvlgenError, ValueError):
    """A configuration key or value is unknown, missing or does not fit."""


class MissingLavisError(EvlgenError, ModuleNotFoundError):
    """LAVIS, which this package builds on, is not installed."""


class WeightsError(EvlgenError, FileNotFoundError):
    """A file of weights is missing, damaged or belongs to another model."""


class DownloadError(EvlgenError, OSError):
    """A file cannot be fetched, or the process that fetches it for the others does not finish."""


class DataError(EvlgenError, ValueError):
    """A data file is missing, damaged or empty, or too many of its samples are."""


class DivergedError(EvlgenError):
    """Training gives no finite loss any more."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or the name of its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip() if lines else type(error).__name__


def one_line(error: BaseException) -> str:
    """The kind of an error and its first line: ``KeyError: 'x'``."""
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the known name most like `name`, or the list of known names if none is."""
    name, known = str(name), sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"

"""What captions say of things that the records know: names of the things, sizes, backgrounds, places."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from lavis_evlgen.metrics.captions import normalise

ATTRIBUTES = ("size", "background", "place", "relation", "color")


class Described(Protocol):
    """A record: its id and its further keys."""

    image_id: str
    extras: dict[str, Any]


def attribute_scores(
    records: Iterable[Described], captions: Mapping[str, str], attributes: Sequence[str] = ATTRIBUTES
) -> dict[str, float]:
    """Shares of captions that contain, as whole words, what their record says.

    ``named_right``: all names in the record's ``things`` (a list, or one string); "hot dog" does not name a dog where
    both are things. ``size_right``, ...: the value of that key. Each share is over the captions whose records have
    the key; keys that no record has are absent.
    """
    keys = {"things": "named_right"} | {key: f"{key}_right" for key in attributes}
    hits: dict[str, list[bool]] = {}
    records = list(records)
    vocabulary = {name for record in records for name in _strings(record.extras.get("things"))}
    for record in records:
        caption = captions.get(record.image_id)
        if caption is None:
            continue
        for key, score in keys.items():
            values = _strings(record.extras.get(key))
            if values:
                said = named(caption, vocabulary) if key == "things" else {v for v in values if contains(caption, v)}
                hits.setdefault(score, []).append(said.issuperset(values))
    return {score: sum(found) / len(found) for score, found in hits.items()}


def named(caption: str, vocabulary: Iterable[str]) -> set[str]:
    """The names of the vocabulary that a caption holds; a longer name hides the shorter ones inside it."""
    found = set()
    for name in sorted(vocabulary, key=len, reverse=True):
        if contains(caption, name):
            found.add(name)
            caption = f" {normalise(caption)} ".replace(f" {normalise(name)} ", " _ ")
    return found


def _strings(value: Any) -> list[str]:
    """One string or a list of strings as a list; empty for anything else."""
    values = [value] if isinstance(value, str) else value
    strings = isinstance(values, Sequence) and all(isinstance(each, str) for each in values)
    return list(values) if strings else []


def contains(caption: str, words: str) -> bool:
    """Whether a caption holds the words in their order, side by side, letter case and punctuation aside."""
    return f" {normalise(words)} " in f" {normalise(caption)} "

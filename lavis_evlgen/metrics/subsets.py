"""Scores of parts of a split, such as nocaps's kinds of pictures, each as if it were a corpus of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lavis_evlgen.errors import ConfigError, nearest

ENTIRE = "entire"


def subset_ids(records: Sequence[Any], key: str) -> dict[str, list[str]]:
    """The image ids of records by the value of ``extras[key]``, in the values' order.

    A record whose value is a list belongs to the subset of each of its items; one without the key belongs to none.
    """
    found: dict[str, list[str]] = {}
    for record in records:
        value = record.extras.get(key)
        for name in value if isinstance(value, list) else [value]:
            if name not in (None, ""):
                found.setdefault(str(name), []).append(record.image_id)
    return dict(sorted(found.items()))


def check_subset(records: Sequence[Any], key: str) -> None:
    """Raise ConfigError, naming the keys that there are, when no record has ``key``."""
    known: set[str] = set()
    for record in records:
        if key in record.extras:
            return
        known.update(record.extras)
    hint = nearest(key, known) if known else "; the records have no further keys"
    raise ConfigError(f"run.subset: no record has the key {key!r}{hint}")


def subset_scores(
    ids: Mapping[str, Sequence[str]],
    references: Mapping[str, Sequence[str]],
    captions: Mapping[str, str],
    entire: Mapping[str, Any],
    score: Callable[[Mapping[str, Sequence[str]], Mapping[str, str]], dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Scores by subset, and under ``entire`` those of the whole split.

    CIDEr weighs words by how rare they are in the references of the same subset, as is done for nocaps's in-, near- and
    out-of-domain figures.

    Args:
        ids: image ids by subset; a subset without any scored caption is left out.
        entire: the scores of the whole split.
        score: what makes scores of references and captions.
    """
    scores: dict[str, dict[str, Any]] = {}
    for name, members in ids.items():
        scored = {key: captions[key] for key in members if key in captions and references.get(key)}
        if scored:
            scores[name] = score({key: references[key] for key in scored}, scored)
    scores[ENTIRE] = dict(entire)
    return {name: _figures(found) for name, found in scores.items()}


def _figures(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scores.items() if isinstance(value, int | float)}

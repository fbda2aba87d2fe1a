"""What a token map says in numbers: sizes, connectedness, and how far two maps of the same patches agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lavis_evlgen.reports.tokens.map import NO_TOKEN


def map_figures(maps: Sequence[np.ndarray] | np.ndarray, num_tokens: int) -> dict[str, Any]:
    """The figures of one layer.

    Args:
        maps: the token of every patch, [rows, columns], for each frame that has tokens of its own.
        num_tokens: tokens of each map, those that cover no patch (a CLS token) among them.

    Returns:
        ``tokens``: of all maps. ``largest``, ``median``: patches of a token, where it has any. ``single_patch``,
        ``without_patch``: tokens that cover one patch or none. ``several_patches``: the others; ``connected``: those of
        them whose patches hang together by their sides. ``patches_left_out``: patches of no token.
    """
    sizes = [token["patches"] for token in token_list(maps)]
    pieces = [token["pieces"] for token in token_list(maps) if token["patches"] > 1]
    return {
        "tokens": num_tokens * len(maps),
        "largest": max(sizes, default=0),
        "median": float(np.median(sizes)) if sizes else 0.0,
        "single_patch": sizes.count(1),
        "without_patch": num_tokens * len(maps) - len(sizes),
        "several_patches": len(pieces),
        "connected": pieces.count(1),
        "patches_left_out": sum(int((ids == NO_TOKEN).sum()) for ids in maps),
    }


def token_list(maps: Iterable[np.ndarray]) -> list[dict[str, int]]:
    """Tokens with patches: ``map`` (from 0), ``token``, ``patches``, ``pieces``; map by map, the largest first."""
    found = []
    for number, ids in enumerate(maps):
        tokens, counts = np.unique(ids[ids != NO_TOKEN], return_counts=True)
        parts = pieces(ids)
        for place in np.argsort(-counts, kind="stable"):
            token = int(tokens[place])
            found.append({"map": number, "token": token, "patches": int(counts[place]), "pieces": parts[token]})
    return found


def pieces(ids: np.ndarray) -> dict[int, int]:
    """In how many pieces a token's patches lie; patches that share a side belong to one piece."""
    rows, columns = ids.shape
    found: dict[int, int] = {}
    unseen = {(row, column) for row in range(rows) for column in range(columns) if ids[row, column] != NO_TOKEN}
    while unseen:
        reached = [unseen.pop()]
        token = int(ids[reached[0]])
        found[token] = found.get(token, 0) + 1
        while reached:
            row, column = reached.pop()
            for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if place in unseen and ids[place] == token:
                    unseen.remove(place)
                    reached.append(place)
    return found


def mean_figures(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The means over several pictures of what `Shown.figures` says of each layer, under the same names.

    Args:
        found: all with the same states and layers.
    """
    states = [name for name, value in found[0].items() if isinstance(value, Mapping)]
    means: dict[str, Any] = {"files": len(found)}
    for state in states:
        alike = zip(*(each[state]["layers"] for each in found), strict=True)
        means[state] = {"layers": [_mean_layer(layers) for layers in alike]}
    if "agreement" in found[0]:
        means["agreement"] = np.mean([each["agreement"] for each in found], axis=0).tolist()
    return means


def _mean_layer(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures = [name for name in layers[0] if name != "layer"]
    return {"layer": layers[0]["layer"], **{name: float(np.mean([each[name] for each in layers])) for name in figures}}


def agreement(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> float:
    """The mean over the maps of two states' :func:`adjusted_rand_index`."""
    return float(np.mean([adjusted_rand_index(*pair) for pair in zip(first, second, strict=True)]))


def adjusted_rand_index(first: np.ndarray, second: np.ndarray) -> float:
    """How far two partitions of the same things agree (Hubert and Arabie 1985): 1 if equal, 0 on average by chance.

    Of all pairs of things, it counts those that lie together in both partitions, over what chance would give for parts
    of these sizes. Patches of no token count as one part.

    Args:
        first, second: the part of each thing, of any equal shape.
    """
    _, rows = np.unique(first, return_inverse=True)
    _, columns = np.unique(second, return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1), dtype=np.int64)
    np.add.at(table, (rows.ravel(), columns.ravel()), 1)
    together = _pairs(table)
    in_first, in_second, all_pairs = _pairs(table.sum(axis=1)), _pairs(table.sum(axis=0)), _pairs(table.sum())
    by_chance = in_first * in_second / max(all_pairs, 1)
    most = (in_first + in_second) / 2
    # both one part, or both all parts of one thing: nothing is left to chance
    return 1.0 if most == by_chance else float((together - by_chance) / (most - by_chance))


def _pairs(counts: np.ndarray) -> int:
    """Pairs of things within parts of these sizes."""
    return int((counts * (counts - 1) // 2).sum())

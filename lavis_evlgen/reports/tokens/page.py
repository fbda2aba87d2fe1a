"""Token maps as a page: a slider over the layers, and the token of any patch lit up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lavis_evlgen.reports import page
from lavis_evlgen.reports.tokens.figures import mean_figures, pieces
from lavis_evlgen.reports.tokens.map import SHADE, TINT, colour
from lavis_evlgen.reports.tokens.script import SCRIPT, STYLE
from lavis_evlgen.reports.tokens.states import Layer, Shown

SIDE = 448  # pixels of the longer side of a picture on the page
COLUMNS = ("largest", "median", "single_patch", "several_patches", "connected", "patches_left_out")
TITLE = "Which patches became one token"
HELP = (
    "Patches of one colour are one token; a patch without colour is a token by itself. Point at a patch, tap it or go "
    "to it with the arrow keys: its token lights up, in every map of the same picture. A click or Enter holds it, "
    "Escape lets go. The numbers below a map are its tokens with several patches, by size."
)
FIGURES = (
    "In the tables, largest and median are patches a token; connected are tokens with several patches that hang "
    "together by their sides."
)
STATES = "Where two numbers stand, the first is before training and the second after it."
AGREEMENT = "adjusted Rand index: 1 equal, 0 as by chance"


def token_page(shown: Sequence[Shown], facts: Mapping[str, Any]) -> str:
    """A self-contained HTML page of the maps of pictures and clips under one model.

    Args:
        shown: with their maps.
        facts: about model and weights, in a table below.
    """
    figures = [each.figures() for each in shown]
    means = mean_figures(figures)
    text = f"{FIGURES} {STATES}" if len(shown[0].states) > 1 else FIGURES
    parts = [
        f"<style>{STYLE}</style><h1>{TITLE}</h1>",
        _summary(shown[0], means),
        f'<p class="soft">{escape(HELP)}</p><p class="soft">{escape(text)}</p>',
        "<noscript><p>The maps are drawn by JavaScript, which is off here.</p></noscript>",
        maps_html(shown, figures),
        page.section(f"Means of all {len(shown)}", "", _table(means)) if len(shown) > 1 else "",
        page.section("Model and weights", "", page.facts(facts)),
        _attribution(shown),
        f"<script>{SCRIPT} showTokenMaps(document);</script>",
    ]
    return page.page(TITLE, parts)


def maps_html(shown: Sequence[Shown], figures: Sequence[Mapping[str, Any]] | None = None, name: str = "layer") -> str:
    """The maps with their slider, for a page that has STYLE and SCRIPT and calls ``showTokenMaps`` on what holds them.

    Args:
        figures: of each, for a table below its maps; none without it.
        name: the slider's id, which must be the only one of its page.
    """
    data = {"tint": TINT, "shade": SHADE, "files": [_data(each) for each in shown]}
    encoded = json.dumps(data, separators=(",", ":")).replace("<", r"\u003c")  # a tag could end the script
    tables = map(_table, figures) if figures else [""] * len(shown)
    return "\n".join(
        [
            _slider(_layers(shown[0]), name),
            *(_section(*each) for each in zip(shown, tables, strict=True)),
            f'<script type="application/json">{encoded}</script>',
        ]
    )


def _layers(shown: Shown) -> list[Layer]:
    return next(iter(shown.states.values()))


def _summary(first: Shown, means: Mapping[str, Any]) -> str:
    values = [
        (f"{first.visual_tokens} → {_layers(first)[-1].num_tokens}", "visual tokens into the connector and out of it")
    ]
    if "agreement" in means:
        text = f"agreement of the final maps before and after training ({AGREEMENT})"
        values.append((f"{means['agreement'][-1]:.2f}", text))
    return page.cards(values)


def _slider(layers: Sequence[Layer], name: str) -> str:
    if len(layers) < 2:
        return ""
    last = len(layers) - 1
    return (
        f'<div class="bar"><label for="{name}">Layer of the connector</label>'
        f'<input type="range" id="{name}" min="0" max="{last}" value="{last}"><output for="{name}"></output></div>'
    )


def _section(shown: Shown, table: str) -> str:
    """Each frame beside its maps, what is lit, and the figures."""
    rows = []
    for number, frame in enumerate(shown.frames):
        name = f"frame {number + 1}" if len(shown.frames) > 1 else "picture"
        picture = frame.resize(_size(shown))
        stages = [_stage(shown, state, number, name) for state in shown.states]
        rows.append(f'<div class="maps-of">{page.figure(picture, name, name)}{"".join(stages)}</div>')
    return (
        f'<section class="shown"><h2>{escape(shown.path)}</h2><p>{escape(shown.how)}</p>{"".join(rows)}'
        f'<p class="said" aria-live="polite"></p>{table}</section>'
    )


def _stage(shown: Shown, state: str, frame: int, name: str) -> str:
    """The canvas of a state's map over a frame; tokens are listed below the first of those that share a map."""
    number = list(shown.states).index(state) * shown.num_maps + (frame if shown.num_maps > 1 else 0)
    tokens = '<span class="tokens"></span>' if frame == 0 or shown.num_maps > 1 else ""
    return (
        f'<figure><canvas tabindex="0" role="application" data-map="{number}" data-frame="{frame}" '
        f'aria-label="{name}: tokens {state}"></canvas>'
        f'<figcaption><strong>{state}</strong><span class="count"></span>{tokens}</figcaption></figure>'
    )


def _table(figures: Mapping[str, Any]) -> str:
    """A row for every layer; two states stand in one cell."""
    found = [value["layers"] for value in figures.values() if isinstance(value, Mapping)]
    agreement = figures.get("agreement", [])
    left_out = any(layer["patches_left_out"] for layers in found for layer in layers)
    names = COLUMNS if left_out else COLUMNS[:-1]
    head = ["", "tokens", *(name.replace("_", " ") for name in names), *(["agreement"] if agreement else [])]
    rows = []
    for number, alike in enumerate(zip(*found, strict=True)):
        cells = [" → ".join(f"{round(each[name], 2):g}" for each in alike) for name in names]
        agreed = [f"{agreement[number]:.2f}"] if agreement else []
        rows.append([alike[0]["layer"], f"{round(alike[0]['tokens'], 2):g}", *cells, *agreed])
    return page.table(head, rows)


def _data(shown: Shown) -> dict[str, Any]:
    """What the script draws; the maps in the order that `_stage` counts in."""
    rows, columns = _layers(shown)[0].maps.shape[1:]
    maps = []
    for state, layers in shown.states.items():
        for number in range(shown.num_maps):
            drawn = [
                _drawn(layer, number, ranks[number]) for layer, ranks in zip(layers, shown.ranks[state], strict=True)
            ]
            maps.append({"state": state, "frame": number + 1 if shown.num_maps > 1 else 0, "layers": drawn})
    return {"rows": rows, "columns": columns, "shared": shown.num_maps == 1, "maps": maps}


def _drawn(layer: Layer, number: int, ranks: Mapping[int, int]) -> dict[str, Any]:
    """The token of each patch, and of the tokens with several patches the colour and the number of pieces."""
    ids = layer.maps[number]
    parts = pieces(ids)
    tokens = {token: ["#{:02x}{:02x}{:02x}".format(*colour(rank)), parts[token]] for token, rank in ranks.items()}
    return {"name": layer.name, "count": layer.num_tokens, "ids": ids.ravel().tolist(), "tokens": tokens}


def _size(shown: Shown) -> tuple[int, int]:
    rows, columns = _layers(shown)[0].maps.shape[1:]
    return round(SIDE * columns / max(rows, columns)), round(SIDE * rows / max(rows, columns))


def _attribution(shown: Sequence[Shown]) -> str:
    """What ATTRIBUTION.txt says of the pictures, beside them or one folder above, as our own data sets have it."""
    folders = dict.fromkeys(folder for each in shown for folder in list(Path(each.path).absolute().parents)[:2])
    notices = [folder / "ATTRIBUTION.txt" for folder in folders]
    texts = dict.fromkeys(each.read_text("utf-8") for each in notices if each.is_file())
    lines = [line for text in texts for line in text.split("\n\n")]
    return "<footer>" + "".join(f"<p>{escape(line)}</p>" for line in lines) + "</footer>" if lines else ""

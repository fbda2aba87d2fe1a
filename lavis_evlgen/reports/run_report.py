"""The report of a run: report.html, one self-contained page to look at, and report.json, its figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from lavis.common.registry import registry
from PIL import Image

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.reports import page, sections
from lavis_evlgen.reports.examples import Example, examples, shows_clips
from lavis_evlgen.reports.figures import figures
from lavis_evlgen.reports.run_files import RunFiles
from lavis_evlgen.reports.tokens.map import draw_token_map, source_maps

KNOWN_SHOWN, UNSEEN_SHOWN, MAPS_SHOWN = 12, 6, 4


def write_report(run_dir: str | Path, out_dir: str | Path | None = None, command: str | None = None) -> dict[str, Any]:
    """Write report.html and report.json of a finished run.

    Args:
        run_dir: the run's output folder; its config.yaml names model and data.
        out_dir: where to write, by default to the run folder.
        command: the command line of the training, to be shown.

    Returns:
        What report.json holds, see :func:`lavis_evlgen.reports.figures.figures`.

    Raises:
        DataError: no run folder, one without an evaluation, or its pictures are missing.
        WeightsError: weights are missing or do not fit the model.
    """
    run = RunFiles.read(run_dir)
    known = examples(run, run.known_split, KNOWN_SHOWN)
    unseen = examples(run, run.unseen_split, UNSEEN_SHOWN) if run.unseen_split else []
    model = model_as_built(run)
    maps = token_maps(run, model, known[:MAPS_SHOWN])
    found = figures(run, model, command)
    title = f"{run.folder.resolve().name}: what the model learned"
    html = page.page(
        title,
        [
            f"<h1>{escape(title)}</h1>",
            sections.summary(run, found),
            sections.headline(run, found),
            sections.known_examples(run.known_split, known),
            sections.unseen_examples(run.unseen_split, unseen),
            sections.token_maps(found, maps),
            sections.learning(run),
            sections.all_scores(run),
            sections.usage(run),
            sections.facts(run, found),
            sections.attribution(run),
        ],
    )
    page.write(Path(out_dir or run_dir), html, found)
    return found


def model_as_built(run: RunFiles) -> torch.nn.Module:
    """The run's model before training, in fp32 on the CPU: the same seed gives the same fresh weights."""
    torch.manual_seed(int(run.config.run.get("seed", 42)))
    model = registry.get_model_class(run.config.model.arch).from_config(run.config.model)
    return model.float().eval()


def token_maps(run: RunFiles, model: Any, shown: Sequence[Example]) -> list[tuple[Image.Image, ...]]:
    """For every example the picture, its tokens with the fresh model, and with the trained weights (then loaded).

    Nothing where the run has no weights, a connector that merges nothing, or clips.
    """
    if not shown or shows_clips(shown[0].dataset) or not run.weights.is_file():
        return []
    images = torch.stack([example.dataset.vis_processor(example.picture) for example in shown])
    try:
        (before,) = source_maps(model, images)
    except ConfigError:
        return []
    model.load_checkpoint(str(run.weights))
    (after,) = source_maps(model, images)
    grid, prefix = model.vision.grid, model.vision.num_prefix_tokens
    rows = []
    for example, *maps in zip(shown, before, after, strict=True):
        drawn = [draw_token_map(example.picture, each, grid, prefix) for each in maps]
        rows.append((example.picture.resize(drawn[0].size), *drawn))
    return rows

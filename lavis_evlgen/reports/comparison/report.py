"""The report of a comparison: its derived figures, and the page and report.json that show them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_evlgen.reports import page
from lavis_evlgen.reports.comparison.file import Arm, Comparison, Final, Run, read_comparison
from lavis_evlgen.reports.comparison.page import comparison_page
from lavis_evlgen.reports.comparison.times import CIDER, LOSS, measured, spread, steady_seconds, time_to_quality
from lavis_evlgen.reports.comparison.verdicts import headlines, verdicts


def write_comparison_report(
    folder: str | Path, out_dir: str | Path | None = None, command: str | None = None
) -> dict[str, Any]:
    """Write report.html and report.json of a comparison, finished or not.

    Args:
        folder: holds comparison.json; or that file.
        out_dir: where to write, by default to the folder.
        command: the command line to be shown in the place of the one that the comparison notes.

    Returns:
        What report.json holds, see :func:`figures`.

    Raises:
        DataError: comparison.json is missing or wrong.
    """
    comparison = read_comparison(folder)
    found = {**figures(comparison), "command": command or comparison.command}
    found["report_date"] = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    target = Path(out_dir or (Path(folder) if Path(folder).is_dir() else Path(folder).parent))
    page.write(target, comparison_page(comparison, found), found)
    return found


def figures(comparison: Comparison) -> dict[str, Any]:
    """Everything derived, ready for JSON.

    Returns:
        ``arms`` by name: finished and unfinished seeds, whole training time, ``final`` figures over the finished seeds
        (``mean``, ``sd``, ``min``, ``max``, ``n``; scores as ``split.name``). ``to_quality``: for every ordered pair of
        arms (an arm and itself among them) and metric what :func:`time_to_quality` says. ``verdicts`` on the claims,
        and ``headlines``, the sentences that matter most.
    """
    found: dict[str, Any] = {
        "name": comparison.name,
        "date": comparison.date,
        "reference": reference(comparison).name,
        "arms": {arm.name: arm_figures(arm, comparison.seeds) for arm in comparison.arms},
        "to_quality": [
            time_to_quality(arm, of, metric, comparison.validation_split)
            for metric in metrics(comparison)
            for of in comparison.arms
            for arm in comparison.arms
        ],
    }
    found["verdicts"] = verdicts(comparison, found)
    found["headlines"] = headlines(comparison, found)
    return found


def reference(comparison: Comparison) -> Arm:
    """The arm to whose quality times are given first; the first arm where the named one is not in the comparison."""
    return comparison.arm(comparison.reference or "") or comparison.arms[0]


def metrics(comparison: Comparison) -> list[str]:
    """The held-out loss and CIDEr, and what else is claimed, as far as it was measured during training."""
    claimed = [claim.metric for claim in comparison.claims or () if claim.share_of_time is not None]
    return [
        metric
        for metric in dict.fromkeys([LOSS, CIDER, *claimed])
        if any(measured(arm, run, metric, comparison.validation_split) for arm in comparison.arms for run in arm.runs)
    ]


def arm_figures(arm: Arm, seeds: Sequence[int]) -> dict[str, Any]:
    """Costs, and final quality over the finished seeds; `seeds` are those that were asked for."""
    done = [run.seed for run, _ in arm.finished]
    reached = {run.seed: last_step(run) for run in arm.runs}
    return {
        "title": arm.title,
        "seeds": done,
        "unfinished": [
            {"seed": seed, "steps": reached.get(seed, 0)}
            for seed in dict.fromkeys([*seeds, *reached])
            if seed not in done
        ],
        "steps": arm.steps,
        "seconds": steady_seconds(arm, arm.steps),
        "seconds_logged": spread(final.seconds for _, final in arm.finished),
        "stages": [vars(stage) for stage in arm.stages],
        "final": _final_figures([final for _, final in arm.finished]),
    }


def last_step(run: Run) -> int:
    """How far an unfinished run has come, as far as it was measured."""
    steps = [point.step for point in run.curve] + [each.step for each in run.evaluations]
    return max(steps, default=0)


def _final_figures(finals: Sequence[Final]) -> dict[str, Any]:
    """Spreads by metric, those that no run has left out."""
    gaps = [
        final.shuffled_loss - final.held_out_loss
        for final in finals
        if final.shuffled_loss is not None and final.held_out_loss is not None
    ]
    names = dict.fromkeys((split, name) for final in finals for split in final.scores for name in final.scores[split])
    found = {
        LOSS: spread(final.held_out_loss for final in finals),
        "shuffled_loss": spread(final.shuffled_loss for final in finals),
        "gap": spread(gaps),
        **{
            f"{split}.{name}": spread(final.scores.get(split, {}).get(name) for final in finals)
            for split, name in names
        },
    }
    return {name: each for name, each in found.items() if each}

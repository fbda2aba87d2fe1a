"""What makes two runs equal."""

from typing import Any

import torch

from .runs import Run

STEP = ("iters", "loss", "lr", "grad_norm", "skipped")
METRICS = ("split", "iters", "agg_metrics")


def difference(run: Run, reference: Run, ignore: tuple[str, ...] = ()) -> str:
    """The first thing that differs between a recovered run and the undisturbed one; "" when nothing does."""
    steps, expected = _steps(run, ignore), _steps(reference, ignore)
    if [row["iters"] for row in steps] != list(range(1, run.steps_wanted + 1)):
        return f"log.jsonl holds the steps {[row['iters'] for row in steps]}"
    for mine, other in zip(steps, expected, strict=True):
        if mine != other:
            return f"step {mine['iters']} was {mine}, undisturbed {other}"
    if _metrics(run) != _metrics(reference):
        return f"validation gave {_metrics(run)}, undisturbed {_metrics(reference)}"
    weights, undisturbed = run.weights(), reference.weights()
    if weights.keys() != undisturbed.keys():
        return f"model.pth holds {sorted(weights.keys() ^ undisturbed.keys())} in one run only"
    different = [name for name in weights if not torch.equal(weights[name], undisturbed[name])]
    if different:
        return f"the weights {different} of model.pth differ"
    return f"{run.unfinished()[0].name} was left" if run.unfinished() else ""


def _steps(run: Run, ignore: tuple[str, ...]) -> list[dict[str, Any]]:
    keys = [key for key in STEP if key not in ignore]
    return [{key: row[key] for key in keys if key in row} for row in run.records() if "lr" in row]


def _metrics(run: Run) -> list[tuple[Any, ...]]:
    return [tuple(row.get(key) for key in METRICS) for row in run.records() if "agg_metrics" in row]

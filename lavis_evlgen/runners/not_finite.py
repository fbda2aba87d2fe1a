"""Steps whose loss or gradient was not finite: which samples they had, and when there are too many of them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis.common.dist_utils import is_main_process
from torch import Tensor

from lavis_evlgen.datasets.whole_files import writes_explained
from lavis_evlgen.errors import DivergedError
from lavis_evlgen.runners.distributed import gathered

FILE = "not_finite.jsonl"


def sample_ids(batches: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The ids that batches have, such as image_id and question_id, in order of their samples."""
    ids: dict[str, list[Any]] = {}
    for batch in batches:
        for key, value in batch.items():
            if key in ("id", "index") or key.endswith("_id"):
                values = value.tolist() if isinstance(value, Tensor) else value
                ids.setdefault(key, []).extend(values if isinstance(values, list | tuple) else [values])
    return ids


def note_samples(folder: Path, iters: int, loss: float, batches: Sequence[dict[str, Any]]) -> None:
    """Add the samples of step ``iters`` to ``folder``/not_finite.jsonl. Every rank must call it, with its own loss.

    One line a rank: iters, rank, loss ("nan", "inf" or a number) and the ids. Ranks with a finite loss are left out
    unless all are finite: then a gradient was not.
    """
    found = gathered((loss, sample_ids(batches)))
    if not is_main_process():
        return
    gradient_only = all(math.isfinite(own) for own, _ in found)
    with writes_explained(folder), open(folder / FILE, "a", encoding="utf-8") as file:
        for rank, (own, ids) in enumerate(found):
            if gradient_only or not math.isfinite(own):
                written = own if math.isfinite(own) else str(own)
                file.write(json.dumps({"iters": iters, "rank": rank, "loss": written, "ids": ids}, default=str) + "\n")


def check_row(in_a_row: int, most: int, folder: Path) -> None:
    """Raise DivergedError when ``most`` steps in a row were not finite."""
    if in_a_row >= most:
        raise DivergedError(
            f"the loss or its gradient was not finite in {in_a_row} steps in a row (run.max_nan_steps): lower "
            f"run.init_lr, set run.max_grad_norm (1.0 is usual), lengthen run.warmup_steps, or use run.precision bf16 "
            f"or fp32. {folder / FILE} names the samples of these steps; the weights are those of the step before them"
        )

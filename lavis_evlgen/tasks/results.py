"""The result file of an evaluation, as LAVIS's own tasks write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lavis_evlgen.datasets.whole_files import write_text, writes_explained
from lavis_evlgen.runners.distributed import gathered, on_rank_zero


def save_result(result: list[dict[str, Any]], result_dir: str, filename: str, remove_duplicate: str = "") -> str:
    """BaseTask.save_result: the results of all ranks in one file, whose path every rank gets.

    LAVIS goes through files of each rank, which a full disk leaves empty without an error and which rank 0 cannot see
    on other machines.
    """
    path = Path(result_dir) / f"{filename}.json"
    rows = [row for part in gathered(result) for row in part]

    def write() -> None:
        first = {row[remove_duplicate]: row for row in reversed(rows)} if remove_duplicate else {}
        kept = [row for row in rows if not remove_duplicate or first[row[remove_duplicate]] is row]
        with writes_explained(path.parent):
            write_text(path, json.dumps(kept))

    on_rank_zero(write)
    return str(path)

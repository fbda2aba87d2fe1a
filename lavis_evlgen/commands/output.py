"""What several commands print, and what they keep from being printed."""

from __future__ import annotations

import warnings
from pathlib import Path

from lavis_evlgen.json_text import read_json


def quiet() -> None:
    """Leave out the warnings of the libraries below, which no user of these commands can act on."""
    warnings.filterwarnings("ignore")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def tell(folder: Path) -> None:
    """Print the main figures of a report."""
    found = read_json(folder / "report.json", "write the report again")
    for line in found.get("headlines", []):
        print(line)
    for name, arm in found.get("arms", {}).items():
        for split, scores in arm.get("splits", {}).items():
            values = [f"{key} {scores[key]:.3f}" for key in ("order_accuracy", "exact_match", "cider")]
            print(f"{name}, {split}: {', '.join(values)}")
    names = "accuracy accuracy_unseen named_right named_right_unseen exact_match cider held_out_loss shuffled_loss"
    for name in names.split():
        if found.get(name) is not None:
            print(f"{name}: {found[name]:.3f}")
    print(folder / "report.html")

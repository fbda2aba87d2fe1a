"""Runs that differ in one thing, side by side: their figures by arm and split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from lavis.common.registry import registry

from lavis_evlgen.errors import DataError
from lavis_evlgen.json_text import read_json
from lavis_evlgen.reports.order import order_scores, tested_splits
from lavis_evlgen.reports.run_files import RunFiles

ARM_FILE = "arm.json"  # what the demo notes of an arm that is done: {"arm": name, "peak_memory_gib": number}


@dataclass(frozen=True)
class Arm:
    """A finished run of a comparison.

    Attributes:
        run: its files.
        peak_memory: GiB of its process, None where nobody measured it.
        order: what :func:`lavis_evlgen.reports.order.order_scores` found.
    """

    name: str
    run: RunFiles
    peak_memory: float | None
    order: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Arm:
        noted = read_json(folder / ARM_FILE, "remove it and run the demo again: it goes on where it was")
        run = RunFiles.read(folder)
        return cls(str(noted.get("arm", folder.name)), run, noted.get("peak_memory_gib"), order_scores(run))

    def figures(self, records: dict[str, list[Any]]) -> dict[str, Any]:
        """Everything that is known of the arm in numbers; ``records`` by split, seconds, nats a token, GiB."""
        run = self.run
        model = run.config.model
        return {
            "temporal": model.get("temporal"),
            "time_embedding": bool(model.get("time_embedding")),
            "centered": bool(model.get("centered")),
            "steps": run.steps,
            "train_seconds": run.train_seconds,
            "seconds_per_step": round(run.train_seconds / run.steps, 3) if run.train_seconds and run.steps else None,
            "peak_memory_gib": self.peak_memory,
            "trainable_parameters": self.order["trainable_parameters"],
            "soft_prompt_tokens": self.order["tokens_out"],
            "train_loss": run.last("loss"),
            "held_out_loss": run.last("held_out_loss"),
            "shuffled_loss": run.last("shuffled_loss"),
            "splits": {split: self._scores(split, records[split]) for split in records},
        }

    def _scores(self, split: str, records: list[Any]) -> dict[str, Any]:
        scores = self.run.scores[split]
        right = self.order["right"].get(split, {})
        by_mission: dict[str, list[bool]] = {}
        for record in records:
            if record.image_id in right and "mission" in record.extras:
                by_mission.setdefault(record.extras["mission"], []).append(right[record.image_id])
        return {
            "clips": scores.get("captions"),
            "order_accuracy": float(mean(right.values())) if right else None,
            "order_by_mission": {mission: float(mean(found)) for mission, found in by_mission.items()},
            "cider": scores.get("CIDEr"),
            **{name: scores.get(name) for name in ("exact_match", "named_right", "verb_right")},
        }


def find_arms(folder: str | Path) -> list[Arm]:
    """The finished arms below a folder, in the order in which they were trained.

    Raises:
        DataError: there is none.
    """
    notes = sorted(Path(folder).glob(f"*/{ARM_FILE}"), key=lambda path: path.stat().st_mtime_ns)
    if not notes:
        raise DataError(f"{folder} holds no finished run of a comparison: no {ARM_FILE} one folder below it")
    return [Arm.read(path.parent) for path in notes]


def holds_arms(folder: str | Path) -> bool:
    """Whether a folder is that of a comparison rather than of one run."""
    return any(Path(folder).glob(f"*/{ARM_FILE}"))


def shared_datasets(arms: list[Arm]) -> dict[str, Any]:
    """The data sets, by split, that all arms were tested on, as the first arm's configuration builds them."""
    splits = set.intersection(*(set(tested_splits(arm.run)) & set(arm.order["right"]) for arm in arms))
    found: dict[str, Any] = {}
    for name, config in arms[0].run.config.datasets.items():
        built = registry.get_builder_class(name)(config).build_datasets()
        found |= {split: dataset for split, dataset in built.items() if split in splits}
    # in the configuration's order: known things first
    return {split: found[split] for split in tested_splits(arms[0].run) if split in found}

"""What a run left behind about the making of its model, for the card; what is not there stays unknown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from lavis_evlgen.errors import DataError
from lavis_evlgen.json_text import read_json
from lavis_evlgen.reports.run_files import RunFiles, data_folder, last_scores
from lavis_evlgen.runners.progress import RunLog

_SETTINGS = (
    "lr_sched init_lr min_lr warmup_lr warmup_steps weight_decay beta2 max_grad_norm batch_size_train accum_grad_iters "
    "world_size precision seed"
)
_GENERATION = "num_beams max_len min_len prompt"


@dataclass(frozen=True)
class Records:
    """What is known of the making of a model; None or empty: it was not recorded.

    Attributes:
        data: by data set, what it was.
        training: facts in words by their names, in the order of the card.
        scores: by split, the figures of its last evaluation.
        generation: how the texts of these were generated.
        question_prompt: how questions were asked, {} being the question; None: the model captions.
        held_out_loss, shuffled_loss: nats a token on held-out pictures, with their own captions and with others'.
        notices: what the makers of the data want to be said.
        versions: of what the run depended on.
    """

    data: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, str | None] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    generation: str | None = None
    question_prompt: str | None = None
    held_out_loss: float | None = None
    shuffled_loss: float | None = None
    notices: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def read_records(folder: Path, config: DictConfig) -> Records:
    """The records in a run's folder.

    Args:
        folder: with log.jsonl, evaluate.txt and report.json, each of which may be missing.
        config: the configuration of the run.

    Raises:
        DataError: a file that is there is damaged.
    """
    scores = last_scores(folder / "evaluate.txt") if (folder / "evaluate.txt").is_file() else {}
    run = RunFiles(folder, config, RunLog(folder, enabled=False).read(), scores)
    report = folder / "report.json"
    reported = read_json(report, "write the report again") if report.is_file() else {}
    settings = config.get("run") or {}
    datasets = {name: section or {} for name, section in (config.get("datasets") or {}).items()}
    return Records(
        data={str(name): _data(section) for name, section in datasets.items()},
        training=_training(run, settings, reported),
        scores=scores,
        generation=_chosen(settings, _GENERATION),
        question_prompt=run.question_prompt,
        held_out_loss=run.last("held_out_loss"),
        shuffled_loss=run.last("shuffled_loss"),
        notices=tuple(run.notices),
        versions=reported.get("versions") or {},
    )


def _training(run: RunFiles, settings: Any, reported: Mapping[str, Any]) -> dict[str, str | None]:
    steps = run.steps
    seconds = run.train_seconds if steps else None
    machine = reported.get("machine") or {}
    return {
        "steps": f"{steps:,}" if steps else None,
        f"{run.nouns} a step": f"{run.images_per_step:,}" if settings else None,
        f"{run.nouns} seen": f"{steps * run.images_per_step:,}" if steps else None,
        "settings": _chosen(settings, _SETTINGS),
        "training time": f"{seconds / 60:.0f} min" if seconds else None,
        "machine": ", ".join(f"{name} {value}" for name, value in machine.items() if value) or None,
        "command": reported.get("command"),
        "date of the report": reported.get("date"),
    }


def _chosen(settings: Any, names: str) -> str | None:
    values: Any = OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig) else settings
    said = [f"{name} {values[name]}" for name in names.split() if values.get(name) not in (None, "")]
    return ", ".join(said) or None


def _data(section: Any) -> str:
    """A data set in words: the names of its files, not their places, and what made its pictures if that is known."""
    files = section.get("annotations") or section.get("shards") or {}
    named = [f"{split!s}: {_names(value)}" for split, value in files.items()] if isinstance(files, DictConfig) else []
    spec = data_folder(section) / "spec.json"
    try:
        made = read_json(spec, "make the data again") if os.path.isfile(spec) else {}
    except DataError:
        made = {}
    if "openmoji" in made:  # lavis_evlgen.embedded wrote it
        counts = ", ".join(f"{split} {count:,}" for split, count in made["pictures"].items())
        named.append(f"pictures by lavis_evlgen.embedded: {counts}; {len(made['things'])} things")
        named += [f"{key} {made[key]}" for key in ("two_things", "image_size", "seed", "openmoji") if key in made]
    return "; ".join(named) or "its files are not recorded"


def _names(value: Any) -> str:
    paths = value if isinstance(value, ListConfig) else [value]
    return ", ".join(Path(str(path)).name for path in paths)

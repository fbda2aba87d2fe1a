"""comparison.json (format 1): what a comparison of training runs leaves behind, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_evlgen.errors import DataError
from lavis_evlgen.json_text import parse_json
from lavis_evlgen.reports.comparison.parsing import Wrong, built

COMPARISON_FILE = "comparison.json"
FORMAT = 1


@dataclass(frozen=True)
class Stage:
    """A stage of an arm's training; `seconds_per_step` is the median over the steps of all its runs.

    `soft_prompt_tokens` is None in a stage whose loss is not that of captions, so that it is compared with no other.
    """

    title: str
    steps: int
    trainable_parameters: int | None
    soft_prompt_tokens: int | None
    seconds_per_step: float | None
    peak_memory_gib: float | None


@dataclass(frozen=True)
class Point:
    """A measurement: `stage` from 1; steps, images and seconds of training so far, over all stages of the arm."""

    stage: int
    step: int
    images: int
    seconds: float
    loss: float | None
    held_out_loss: float | None
    shuffled_loss: float | None


@dataclass(frozen=True)
class Evaluation:
    """Scores of captions of one split, made when a run had come to `step`."""

    stage: int
    step: int
    images: int
    seconds: float
    split: str
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Final:
    """Where a run ended; `scores` by split, measured on the same pictures in all arms."""

    held_out_loss: float | None
    shuffled_loss: float | None
    seconds: float | None
    steps: int | None
    scores: dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Run:
    """An arm trained with one seed; `curve` and `evaluations` are in the order of steps."""

    seed: int
    finished: bool
    curve: tuple[Point, ...]
    evaluations: tuple[Evaluation, ...]
    final: Final | None


@dataclass(frozen=True)
class Arm:
    """One of the ways that are compared; its last stage captions. `overrides` of the base as ``key=value``."""

    name: str
    title: str
    overrides: tuple[str, ...]
    group: str | None
    stages: tuple[Stage, ...]
    runs: tuple[Run, ...]

    @property
    def finished(self) -> list[tuple[Run, Final]]:
        """The runs that came to their end, with that end."""
        return [(run, run.final) for run in self.runs if run.finished and run.final is not None]

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def captions(self, stage: int) -> bool:
        """Whether a stage, from 1, has the loss of captions that all arms share; the last one always has."""
        return stage == len(self.stages) or self.stages[stage - 1].soft_prompt_tokens is not None


@dataclass(frozen=True)
class Tuning:
    """One key's value chosen for each arm from the same grid.

    `scores` by arm and value as text, None where the loss was not finite; `chosen` by arm.
    """

    key: str
    values: tuple[Any, ...]
    steps: int
    split: str
    metric: str
    scores: dict[str, dict[str, float | None]]
    chosen: dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """The arms that differ in one key alone, in the order of its values."""

    key: str
    values: tuple[str, ...]
    arms: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """Something to be shown: `arm` reaches the final `metric` of the arm `of` in a share of that one's training time.

    Without `share_of_time`: its own final value is the better one. `source` says who claims it.
    """

    arm: str
    of: str
    metric: str
    share_of_time: float | None = None
    source: str | None = None


@dataclass(frozen=True)
class Setting:
    """What all arms share."""

    data: str | None
    images: dict[str, int] | None
    vision: str | None
    language: str | None
    batch_size: int | None
    precision: str | None
    device: str | None
    threads: int | None
    processor: str | None
    world_size: int | None


@dataclass(frozen=True)
class Comparison:
    """The whole file."""

    format: int
    name: str
    command: str | None
    date: str | None
    versions: dict[str, str]
    setting: Setting
    seeds: tuple[int, ...]
    tuning: Tuning | None
    sweep: Sweep | None
    claims: tuple[Claim, ...] | None
    reference: str | None
    arms: tuple[Arm, ...]

    def arm(self, name: str) -> Arm | None:
        """The arm of that name; None where the comparison was made without it."""
        return next((arm for arm in self.arms if arm.name == name), None)

    @property
    def validation_split(self) -> str:
        """The split on which scores are followed during training: `val`, else the one that was evaluated first."""
        splits = [each.split for arm in self.arms for run in arm.runs for each in run.evaluations]
        return "val" if "val" in splits or not splits else splits[0]

    def title(self, name: str) -> str:
        arm = self.arm(name)
        return arm.title if arm else name


def holds_comparison(folder: str | Path) -> bool:
    """Whether a folder is that of a comparison rather than of one run."""
    return Path(folder, COMPARISON_FILE).is_file()


def read_comparison(path: str | Path) -> Comparison:
    """Read a comparison from its file, or from the folder that holds it.

    Raises:
        DataError: the file is missing or no JSON, or something in it is missing or wrong; it is named.
    """
    path = Path(path)
    path = path / COMPARISON_FILE if path.is_dir() else path
    try:
        document = parse_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); `compare` writes {COMPARISON_FILE}") from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); run the comparison again, it goes on where it was") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise DataError(f"{path} is no comparison of format {FORMAT}: its `format` is {found!r}")
    try:
        comparison = built(Comparison, document, "")
        _check(comparison)
    except Wrong as error:
        raise DataError(f"{path}: {error}") from error
    return comparison


def _check(comparison: Comparison) -> None:
    """What the parts must be to one another."""
    names = [arm.name for arm in comparison.arms]
    if not names:
        raise Wrong("arms is empty")
    for name in names:
        if names.count(name) > 1:
            raise Wrong(f"arms: two are called {name!r}")
    for a, arm in enumerate(comparison.arms):
        if not arm.stages:
            raise Wrong(f"arms[{a}].stages ({arm.name}) is empty")
        for r, run in enumerate(arm.runs):
            where = f"arms[{a}].runs[{r}]"
            if run.finished and run.final is None:
                raise Wrong(f"{where}.final is null though the run is finished")
            _check_entries(run.curve, len(arm.stages), f"{where}.curve")
            _check_entries(run.evaluations, len(arm.stages), f"{where}.evaluations")


def _check_entries(entries: Sequence[Point | Evaluation], stages: int, where: str) -> None:
    for n, entry in enumerate(entries):
        if not 1 <= entry.stage <= stages:
            raise Wrong(f"{where}[{n}].stage is {entry.stage}, the arm has {stages}")
        if n and entry.step < entries[n - 1].step:
            raise Wrong(f"{where}[{n}].step is {entry.step}, after {entries[n - 1].step}: order them by step")

"""The files of a run folder, as `runner_evlgen` and the tasks that write texts leave them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lavis_evlgen.configuration.read import read_config
from lavis_evlgen.errors import DataError
from lavis_evlgen.json_text import parse_json
from lavis_evlgen.runners.checkpointing import EXPORT
from lavis_evlgen.runners.progress import RunLog
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.tasks.question_answering import question_prompt

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class RunFiles:
    """What a run left behind.

    Attributes:
        folder: the run's output folder.
        config: the whole configuration it ran with (config.yaml).
        log: the records of log.jsonl.
        scores: by split, the scores of its last evaluation (evaluate.txt), `epoch` among them.
    """

    folder: Path
    config: DictConfig
    log: list[dict[str, Any]]
    scores: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, folder: str | Path) -> RunFiles:
        """Read a run folder.

        Raises:
            DataError: it is no run folder, or nothing was evaluated in it yet.
        """
        folder = Path(folder)
        if not (folder / "config.yaml").is_file():
            inside = sorted(path.parent.name for path in folder.glob("*/config.yaml"))
            hint = f"did you mean {folder / inside[-1]}?" if inside else "name the run.output_dir of a training run"
            raise DataError(f"{folder} is no run folder: it has no config.yaml; {hint}")
        config = read_config(str(folder / "config.yaml"), [])
        return cls(folder, config, RunLog(folder, enabled=False).read(), last_scores(folder / "evaluate.txt"))

    @property
    def weights(self) -> Path:
        """The exported weights; they are there once training has ended."""
        return self.folder / EXPORT

    @property
    def known_split(self) -> str:
        """The split that the headline figures are about: `test`, or else the first evaluated one of the run's."""
        configured = [*(self.config.run.get("test_splits") or []), *(self.config.run.get("valid_splits") or [])]
        names = ["test", *configured, *self.scores]
        return next(name for name in names if name in self.scores and name != self.unseen_split)

    @property
    def unseen_split(self) -> str | None:
        """The split of things that training never showed, if there is one."""
        return next((name for name in self.scores if "unseen" in name and len(self.scores) > 1), None)

    @property
    def question_prompt(self) -> str | None:
        """How the run asked its questions, {} being the question; None for a run that captions."""
        return question_prompt(self.config)

    @property
    def is_of_clips(self) -> bool:
        return "video" in str(self.config.model.get("arch"))

    @property
    def seen(self) -> str:
        """What the model looks at, in words."""
        return "clips" if self.is_of_clips else "pictures"

    @property
    def nouns(self) -> str:
        """What its steps are made of, in words."""
        return self.seen if self.question_prompt is None else "questions"

    def texts(self, split: str) -> dict[str, str]:
        """What the model wrote in a split's last evaluation: captions by image id, or answers by question id."""
        path = self.folder / "result" / f"{split}_epoch{self.scores[split]['epoch']}.json"
        key, text = ("image_id", "caption") if self.question_prompt is None else ("question_id", "answer")
        try:
            return {str(row[key]): str(row[text]) for row in parse_json(path.read_bytes())}
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing: evaluate the run again") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error!r}): evaluate the run again") from error

    @property
    def notices(self) -> list[str]:
        """What the makers of its data want to be said: the ATTRIBUTION.txt beside pictures or clips."""
        sections = (self.config.get("datasets") or {}).values()
        files = [data_folder(section or {}) / "ATTRIBUTION.txt" for section in sections]
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if os.path.isfile(file)]
        return [text.strip() for text in texts if text.strip()]

    def curve(self, key: str) -> Points:
        """(step, value) of the log records that have a number under `key`."""
        return [(row["iters"], row[key]) for row in self.log if isinstance(row.get(key), int | float)]

    def last(self, key: str) -> Any:
        """The newest value of a log key, None without one."""
        return next((row[key] for row in reversed(self.log) if row.get(key) is not None), None)

    @property
    def steps(self) -> int:
        """Finished optimisation steps."""
        return max((int(step) for step, _ in self.curve("loss")), default=0)

    @property
    def images_per_step(self) -> int:
        """Pictures of one optimisation step over all processes."""
        return RunSettings.from_config(self.config.run).images_per_step

    @property
    def train_seconds(self) -> float | None:
        """Time of all optimisation steps, waiting for data included, evaluation and checkpoints not."""
        before, seconds = 0.0, 0.0
        for step, speed in self.curve("images_per_s"):
            seconds += (step - before) * self.images_per_step / speed if speed else 0.0
            before = step
        return round(seconds, 1) if before else None


def data_folder(section: Any) -> Path:
    """Where a data set's pictures or clips lie, as its section says."""
    named = section.get("images") or section.get("videos")
    return Path(os.path.expanduser(named if isinstance(named, str) else "nowhere"))


def last_scores(path: Path) -> dict[str, dict[str, Any]]:
    """By split, the scores of its last evaluation in an evaluate.txt; DataError if it is damaged or has none."""
    scores: dict[str, dict[str, Any]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            found = parse_json(line) if line.strip() else {}
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(of, dict) and "epoch" in of for of in found.values()):
            raise DataError(f"{path}, line {number} is damaged: remove it, or evaluate the run again")
        scores |= found
    if not scores:
        raise DataError(
            f"{path} holds no evaluation: let the run end, with a split in run.test_splits or run.valid_splits"
        )
    return scores

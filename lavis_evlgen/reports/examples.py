"""Pictures and clips of an evaluated split with what the model wrote about them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from lavis.common.registry import registry
from PIL import Image

import lavis_evlgen  # noqa: F401  registers the builders
from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.errors import DataError
from lavis_evlgen.metrics.attributes import attribute_scores
from lavis_evlgen.metrics.captions import exact_match
from lavis_evlgen.metrics.vqa import score_answers
from lavis_evlgen.reports.run_files import RunFiles
from lavis_evlgen.reports.strips import strip

CLIP_FRAMES = 4


@dataclass(frozen=True)
class Example:
    """What the model wrote about a picture or clip.

    Attributes:
        record: what the annotation file says of it.
        picture: the picture; of a clip a strip of its frames.
        text: the caption, or the answer to the record's question.
        dataset: its split, which knows how to process it.
        scoring: the rule by which answers were scored.
    """

    record: Any
    picture: Image.Image
    text: str
    dataset: Any
    scoring: str = "auto"

    @property
    def question(self) -> str:
        """What was asked; "" for a caption."""
        return getattr(self.record, "question", "")

    @property
    def references(self) -> list[str]:
        """What people wrote; of several equal answers how many gave it."""
        if not self.question:
            return list(self.record.captions)
        counts = Counter(self.record.answers)
        return [f"{answer} ({count})" if count > 1 else answer for answer, count in counts.most_common()]

    @property
    def named_right(self) -> bool | None:
        """Whether a caption names what the record says is there; None where the record does not say it."""
        found = attribute_scores([self.record], {self.record.image_id: self.text}, ())
        return bool(found["named_right"]) if found else None

    @property
    def word_for_word(self) -> bool:
        """Whether a caption is one of the references."""
        return bool(exact_match({"": self.record.captions}, {"": self.text}))

    @property
    def agreement(self) -> float | None:
        """Of an answer, 0 to 1: its accuracy by the run's rule. None without a question or annotators' answers."""
        if not (self.question and self.record.answers):
            return None
        return score_answers([self.record], {self.record.question_id: self.text}, self.scoring)["accuracy"] / 100


def examples(run: RunFiles, split: str, count: int) -> list[Example]:
    """Examples of a split, drawn at random but always the same ones; those that cannot be read are left out."""
    texts, dataset = run.texts(split), _dataset(run, split)
    scoring = str(run.scores[split].get("scoring", "auto"))
    indices = [index for index in range(len(dataset)) if _key(dataset.record(index)) in texts]
    random.Random(0).shuffle(indices)
    found: list[Example] = []
    for index in indices:
        if len(found) == count:
            break
        picture = _picture(dataset, index)
        if not isinstance(picture, BadSample):
            record = dataset.record(index)
            found.append(Example(record, picture, texts[_key(record)], dataset, scoring))
    return found


def shows_clips(dataset: Any) -> bool:
    return hasattr(dataset, "load_clip")


def _key(record: Any) -> str:
    """What tells a record's text from the others in a result file."""
    return getattr(record, "question_id", record.image_id)


def _picture(dataset: Any, index: int) -> Image.Image | BadSample:
    if not shows_clips(dataset):
        return dataset.load_image(index)
    frames = dataset.load_clip(index, CLIP_FRAMES)
    return frames if isinstance(frames, BadSample) else strip(list(frames.numpy()))


def _dataset(run: RunFiles, split: str) -> Any:
    """The split as its builder makes it, so that records and picture processing are those of the run."""
    for name, config in run.config.datasets.items():
        dataset = registry.get_builder_class(name)(config).build_datasets().get(split)
        if hasattr(dataset, "load_image") or shows_clips(dataset):
            return dataset
    raise DataError(f"{run.folder}/config.yaml: no data set has pictures or clips of the split {split!r} to show")

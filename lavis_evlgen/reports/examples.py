"""Pictures of an evaluated split with what the model wrote about them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from lavis.common.registry import registry
from PIL import Image

import lavis_evlgen  # noqa: F401  registers the builders
from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.errors import DataError
from lavis_evlgen.metrics.attributes import attribute_scores
from lavis_evlgen.metrics.captions import exact_match
from lavis_evlgen.reports.run_files import RunFiles


@dataclass(frozen=True)
class Example:
    """A captioned picture: its record, the model's caption, and its data set, which knows how to process it."""

    record: Any
    picture: Image.Image
    caption: str
    dataset: Any

    @property
    def named_right(self) -> bool | None:
        """Whether the caption names what the record says is there; None where the record does not say it."""
        found = attribute_scores([self.record], {self.record.image_id: self.caption}, ())
        return bool(found["named_right"]) if found else None

    @property
    def word_for_word(self) -> bool:
        """Whether the caption is one of the references."""
        return bool(exact_match({"": self.record.captions}, {"": self.caption}))


def examples(run: RunFiles, split: str, count: int) -> list[Example]:
    """Captioned pictures of a split, drawn at random but always the same ones; unreadable ones are left out."""
    captions, dataset = run.captions(split), _dataset(run, split)
    indices = [index for index in range(len(dataset)) if dataset.record(index).image_id in captions]
    random.Random(0).shuffle(indices)
    found: list[Example] = []
    for index in indices:
        if len(found) == count:
            break
        picture = dataset.load_image(index)
        if not isinstance(picture, BadSample):
            record = dataset.record(index)
            found.append(Example(record, picture, captions[record.image_id], dataset))
    return found


def _dataset(run: RunFiles, split: str) -> Any:
    """The split as its builder makes it, so that records and picture processing are those of the run."""
    for name, config in run.config.datasets.items():
        dataset = registry.get_builder_class(name)(config).build_datasets().get(split)
        if hasattr(dataset, "load_image"):
            return dataset
    raise DataError(f"{run.folder}/config.yaml: no data set has pictures of the split {split!r} to show")

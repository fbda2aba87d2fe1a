"""Pictures with captions as map-style data sets: one item per caption to train on, one per picture to evaluate."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from lavis_evlgen.datasets.bad_samples import BadSample, read_picture
from lavis_evlgen.datasets.captioned import CaptionedFiles, CaptionItems, ReferenceItems


class Pictures(CaptionedFiles):
    """Items show a picture."""

    def image_path(self, index: int) -> Path:
        return self.file(self.record(index))

    def load_image(self, index: int) -> Image.Image | BadSample:
        """The item's picture in RGB before any processing, or what is wrong with its file."""
        return read_picture(self.image_path(index))

    def _visual(self, index: int) -> dict[str, Any] | BadSample:
        picture = self.load_image(index)
        if isinstance(picture, BadSample):
            return picture
        return {"image": self.vis_processor(picture) if self.vis_processor else picture}


class CachedPictures(Pictures):
    """Items show a picture, or its features where these were computed before."""

    features: Callable[[str], Tensor | BadSample] | None = None
    """Where set, items have ``vision_features`` [L, D_v] of their ``image_key`` in place of ``image``."""

    def image_key(self, index: int) -> str:
        """Unique per picture; the items of one picture's captions share it."""
        return str(self.image_path(index))

    def _visual(self, index: int) -> dict[str, Any] | BadSample:
        if self.features is None:
            return super()._visual(index)
        features = self.features(self.image_key(index))
        return features if isinstance(features, BadSample) else {"vision_features": features}


class ImageCaptionDataset(CaptionItems, CachedPictures):
    """For training: ``{"image", "text_input": str, "image_id": str}`` or a BadSample."""


class ImageCaptionEvalDataset(ReferenceItems, CachedPictures):
    """For evaluation: ``{"image", "image_id", "instance_id", "text_input"}`` per picture, or a BadSample."""

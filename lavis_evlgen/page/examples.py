"""Pictures to click on: drawn when the page starts, in compositions that training never shows."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from lavis_evlgen.embedded.drawing import draw
from lavis_evlgen.embedded.scenes import split_scenes
from lavis_evlgen.embedded.things import things
from lavis_evlgen.errors import DataError

SIDE = 224  # pixels, as the demo's pictures
ATTRIBUTION = "Drawings: OpenMoji (openmoji.org), CC BY-SA 4.0; cropped, rimmed, turned and put on coloured grounds."
COUNT = 6


@dataclass(frozen=True)
class Example:
    """A picture, and in words what was drawn."""

    picture: Image.Image
    text: str


def examples() -> list[Example]:
    """Each with another thing; none where the packages that bring the drawings are not installed."""
    try:
        scenes = split_scenes("test", things(COUNT), COUNT, 0.0, seed=0)
        return [
            Example(draw(scene, SIDE, f"page/{number}"), scene.captions()[0]) for number, scene in enumerate(scenes)
        ]
    except DataError:
        return []

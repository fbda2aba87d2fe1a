"""The token maps of a picture or clip, layer by layer, in one or two states of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lavis_evlgen.datasets.bad_samples import BadSample, read_picture
from lavis_evlgen.datasets.clip_errors import ClipError
from lavis_evlgen.datasets.video_reading import read_clip
from lavis_evlgen.datasets.video_text import SUFFIXES, process_clip
from lavis_evlgen.models.temporal import Contextualizer, FrameConcat, FrameMean
from lavis_evlgen.reports.tokens.figures import agreement, map_figures, token_list
from lavis_evlgen.reports.tokens.map import colour_ranks, layer_reductions, patch_tokens, source_map
from lavis_evlgen.token_reduction import Reduction

BEFORE, AFTER, LOADED = "before training", "after training", "as loaded"  # states
FRAMES = 4  # of a clip, for a model of pictures
_SHARED = (
    "{}, and the mean over the frames is taken before the connector. So the connector sees one set of tokens, a token "
    "covers the same patches in every frame, and the one map is drawn over each."
)
_JOINED = {
    FrameConcat: "ViT and connector see each frame by itself: every frame has a map and tokens of its own, and the "
    "tokens of all frames stand one after the other before the language model.",
    FrameMean: _SHARED.format("Frames pass the ViT one by one"),
    Contextualizer: _SHARED.format("In every block of the ViT the frames look at each other, place by place"),
}
_NO_CLIPS = "This model knows no clips: every frame is mapped as a picture by itself."


@dataclass(frozen=True)
class Layer:
    """The token maps after one layer of the connector.

    Attributes:
        name: for labels.
        num_tokens: tokens of each map, those that cover no patch among them.
        maps: the token of every patch, [N, rows, columns]; N is 1 where all frames of a clip share the map.
    """

    name: str
    num_tokens: int
    maps: np.ndarray


@dataclass(frozen=True)
class Shown:
    """A picture or clip and its token maps.

    Attributes:
        path: the file, as it was named.
        frames: what the maps are drawn over: the picture, or the frames of the clip as the model sees them.
        samples: the batch that the model takes.
        visual_tokens: L, what the connector sees of it at once.
        how: what the maps of a clip are maps of; empty for pictures.
        states: its layers in each state of the model.
    """

    path: str
    frames: list[Image.Image]
    samples: dict[str, Tensor]
    visual_tokens: int
    how: str = ""
    states: dict[str, list[Layer]] = field(default_factory=dict)

    @property
    def num_maps(self) -> int:
        """1, or as many as frames where each has tokens of its own."""
        return len(next(iter(self.states.values()))[0].maps)

    @cached_property
    def ranks(self) -> dict[str, list[list[dict[int, int]]]]:
        """By state, layer and map: the ranks of the tokens' colours (see `tokens.map.colour_ranks`).

        Colours go from the last layer backwards, and from the last state to the other, so that a token keeps its colour
        while others merge into it, and tokens that training left nearly the same have the same.
        """
        found: dict[str, list[list[dict[int, int]]]] = {}
        last: tuple[Layer, list[dict[int, int]]] | None = None
        for state, layers in reversed(self.states.items()):
            like, found[state] = last, []
            for layer in reversed(layers):
                ranks = [
                    colour_ranks(ids, (like[0].maps[number], like[1][number]) if like else None)
                    for number, ids in enumerate(layer.maps)
                ]
                like = (layer, ranks)
                last = last or like
                found[state].insert(0, ranks)
        return found

    def figures(self) -> dict[str, Any]:
        """The figures of every layer and state, and of the final tokens; of two states the agreement; for JSON."""
        found: dict[str, Any] = {
            "image": self.path,
            "frames": len(self.frames),
            "maps": self.num_maps,
            "visual_tokens": self.visual_tokens,
        }
        for state, layers in self.states.items():
            found[state.replace(" ", "_")] = {
                "layers": [{"layer": each.name, **map_figures(each.maps, each.num_tokens)} for each in layers],
                "final_tokens": token_list(layers[-1].maps),
            }
        if len(self.states) == 2:
            pairs = zip(*self.states.values(), strict=True)
            found["agreement"] = [agreement(before.maps, after.maps) for before, after in pairs]
        return found


def read(model: Any, process: Any, path: str) -> Shown | BadSample:
    """A picture, or a clip: as a video model takes it, or a model of pictures frame by frame. Without maps as yet."""
    temporal = getattr(model, "temporal", None)
    count = getattr(getattr(model, "vision", None), "num_tokens", 0)  # a model without one has no maps either
    if temporal is not None:
        clip = process_clip(process, Path(path))
        if isinstance(clip, BadSample):
            return clip
        return Shown(path, frames_seen(process, clip), {"video": clip[None]}, count, _JOINED.get(type(temporal), ""))
    if Path(path).suffix.lower() in set(SUFFIXES) - {".gif"}:
        try:
            frames = [Image.fromarray(frame) for frame in read_clip(path, FRAMES).numpy()]
        except ClipError as error:
            return BadSample(path, str(error))
        return Shown(path, frames, {"image": torch.stack([process(each) for each in frames])}, count, _NO_CLIPS)
    picture = read_picture(path)
    if isinstance(picture, BadSample):
        return picture
    return Shown(path, [picture], {"image": process(picture)[None]}, count)


def frames_seen(process: Any, clip: Tensor) -> list[Image.Image]:
    """The frames of a processed clip [3, T, H, W] with the processor's normalisation undone.

    So they are the very frames that the processor chose, as it cut them, whatever processor it is.
    """
    mean, std = (
        torch.as_tensor(values)[:, None, None, None] for values in (process.normalize.mean, process.normalize.std)
    )
    pixels = clip * std + mean
    scale = 1 if float(mean.max()) > 1 else 255  # ours normalises bytes, LAVIS's values up to 1
    frames = (pixels * scale).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0)
    return [Image.fromarray(frame.numpy()) for frame in frames]


def add_maps(model: Any, shown: Sequence[Shown], start: Mapping[str, Tensor] | None = None) -> None:
    """Fill in the states of pictures and clips: the model as it is, and with the weights that it started from.

    Args:
        model: is left with the start's weights, if there are any.
        start: trainable weights by name.

    Raises:
        ConfigError: the model's connector gives no map.
    """
    maps = [map_layers(model, each.samples) for each in shown]
    if start is not None:
        model.load_trainable_state_dict(dict(start), "the start")
    for each, layers in zip(shown, maps, strict=True):
        each.states.update(
            {LOADED: layers} if start is None else {BEFORE: map_layers(model, each.samples), AFTER: layers}
        )


def map_layers(model: Any, samples: Mapping[str, Tensor]) -> list[Layer]:
    """The maps of one picture or clip after every layer of the connector; ConfigError if it gives none."""
    device = next(model.parameters()).device
    return drawn_layers(model, layer_reductions(model, {name: tensor.to(device) for name, tensor in samples.items()}))


def drawn_layers(model: Any, reductions: Sequence[Reduction]) -> list[Layer]:
    """The maps of what the visual tokens have become after each layer of the model's connector."""
    grid, prefix = model.vision.grid, model.vision.num_prefix_tokens
    names = [f"layer {number}" for number in range(1, len(reductions) + 1)] if len(reductions) > 1 else ["connector"]
    return [
        Layer(name, each.num_out, np.stack([patch_tokens(ids, grid, prefix) for ids in source_map(each).cpu()]))
        for name, each in zip(names, reductions, strict=True)
    ]

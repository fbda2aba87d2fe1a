"""The pictures and clips that a command is given, each shown to the model that its options name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_evlgen.commands.output import quiet

if TYPE_CHECKING:
    from torch import Tensor

Processor = Callable[[Any], "Tensor"]  # a PIL picture to [3, H, W], or the path of a clip to [3, T, H, W]


def _read(model: Any, process: Processor, path: str) -> Any:
    """The batch of one that a model takes of a picture's file, or a video model of a clip's; else a BadSample."""
    from lavis_evlgen.datasets.bad_samples import BadSample, read_picture
    from lavis_evlgen.datasets.video_text import SUFFIXES, process_clip

    if getattr(model, "temporal", None) is None:
        picture = read_picture(path)
        if isinstance(picture, BadSample) and Path(path).is_file() and Path(path).suffix.lower() in SUFFIXES:
            return BadSample(path, f"{picture.reason}; clips need a model of clips, such as evlgen_video trains")
        return picture if isinstance(picture, BadSample) else {"image": process(picture)[None]}
    clip = process_clip(process, Path(path))
    return clip if isinstance(clip, BadSample) else {"video": clip[None]}


def for_each_file(args: argparse.Namespace, key: str, describe: Callable[[Any, dict[str, Any]], list[str]]) -> int:
    """Print what `describe` says of each picture or clip; one that cannot be read is told and the others go on."""
    quiet()
    from lavis_evlgen.datasets.bad_samples import BadSample
    from lavis_evlgen.loading import load_by_options
    from lavis_evlgen.runners.samples import to_device

    model, process, device = load_by_options(args.model, args.model_type, args.checkpoint, args.device)
    unreadable = 0
    for path in args.images:
        samples = _read(model, process, path)
        if isinstance(samples, BadSample):
            unreadable += 1
            result: dict[str, Any] = {"error": samples.reason}
            lines = [f"error: {samples.reason}"]
        else:
            lines = describe(model, to_device(samples, device))
            result = {key: lines}
        if args.json:
            lines = []
            print(json.dumps({"image": path, **result}, ensure_ascii=False), flush=True)
        for line in lines:
            print(f"{path}: {line}", flush=True)
    return 1 if unreadable else 0

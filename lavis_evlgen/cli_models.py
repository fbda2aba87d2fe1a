"""The model that a command's options name, and the files that it is shown."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_evlgen.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Processor = Callable[[Any], "Tensor"]  # a PIL picture to [3, H, W], or the path of a clip to [3, T, H, W]


def load(args: argparse.Namespace) -> tuple[Any, Processor, Any]:
    """The model that the options name, its picture processor, and its device."""
    quiet()
    import torch

    from lavis_evlgen.loading import load_checkpoint_and_preprocess, load_model_and_preprocess
    from lavis_evlgen.runners.distributed import usable_device

    try:
        device = usable_device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ConfigError(f"--device {args.device}: torch knows no such device; use cpu, cuda or cuda:N") from error
    if args.checkpoint and not args.model:
        model, processors, _ = load_checkpoint_and_preprocess(args.checkpoint, device)
    else:
        options: dict[str, Any] = {"model_type": args.model_type}
        if args.checkpoint and Path(args.checkpoint).is_dir():
            options = {"model_type": args.checkpoint}
        elif args.checkpoint:
            options |= {"pretrained": args.checkpoint, "load_finetuned": False}
        model, processors, _ = load_model_and_preprocess(args.model or "evlgen", device=device, **options)
    return model, processors["eval"], device


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
    from lavis_evlgen.datasets.bad_samples import BadSample
    from lavis_evlgen.runners.samples import to_device

    model, process, device = load(args)
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


def quiet() -> None:
    """Leave out the warnings of the libraries below, which no user of these commands can act on."""
    warnings.filterwarnings("ignore")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()

"""Frames of video files: the right ones, upright, in RGB, at the file's own size.

PyAV reads where it is installed, decord where it is not. Where both read right they give the same pixels, but:

- decord finds other frames than it was asked for in open groups of pictures (usual in HEVC) and with intra refresh,
  repeats the last frame of trimmed clips (edit lists), and knows neither AV1, gif, mirrored recordings nor, reliably,
  transport streams;
- only PyAV can be told to leave out frames that no other frame needs, which saves up to a third of the time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lavis_evlgen.datasets.clip_errors import ClipError, message, unreadable
from lavis_evlgen.datasets.frame_sampling import Choose, check_sampling, sample_frames
from lavis_evlgen.errors import ConfigError, EvlgenError

DECODERS = ("auto", "av", "decord")


def read_clip(path: str | Path, count: int, sampling: str = "uniform", decoder: str = "auto") -> Tensor:
    """``count`` frames of a video file as uint8 [T, H, W, 3].

    Frames are turned as the file's display matrix says, as players do. They are counted as they are shown, whatever
    the header claims and however irregular their times are. PyAV reduces frames above about two million pixels.

    Args:
        path: any file that FFmpeg reads; with decord not gif and transport streams.
        count, sampling: see :func:`lavis_evlgen.datasets.frame_sampling.sample_frames`.
        decoder: ``av``, ``decord``, or ``auto``: the first of these that is installed.

    Raises:
        ClipError: the file is missing, empty, damaged, no video, or has sound alone.
        ConfigError: an unknown sampling or decoder, or one that is not installed.
    """
    check_sampling(count, sampling)
    read = _reader(decoder)
    path = Path(path)
    reason = unreadable(path)
    if reason:
        raise ClipError(reason)
    try:
        frames = read(str(path.absolute()), lambda length: sample_frames(length, count, sampling))
    except EvlgenError:
        raise
    except Exception as error:  # PyAV and decord raise a dozen kinds of exception on damaged files
        raise ClipError(f"damaged, or no video ({message(error)})") from error
    return torch.from_numpy(frames)


@dataclass(frozen=True)
class ClipSize:
    """How much of a clip there is to decode; `frames` stops at one more than was counted to."""

    width: int
    height: int
    seconds: float
    frames: int


def measure_clip(path: str | Path, most_frames: int) -> ClipSize:
    """The size of a clip, found without decoding any of it.

    Args:
        most_frames: count no further than to one more.

    Raises:
        ClipError: no clip, or PyAV is not installed, without which clips cannot be measured.
    """
    if not find_spec("av"):
        raise ClipError("this needs PyAV; run: pip install av")
    from lavis_evlgen.datasets.av_reader import measure

    try:
        return ClipSize(*measure(str(path), most_frames))
    except ClipError:
        raise
    except Exception as error:  # PyAV raises a dozen kinds of exception on damaged files
        raise ClipError(f"damaged, or no video ({message(error)})") from error


def _reader(decoder: str) -> Callable[[str, Choose], np.ndarray]:
    if decoder not in DECODERS:
        raise ConfigError(f"decoder: {decoder!r} is unknown; use {', '.join(DECODERS)}")
    installed = [name for name in DECODERS[1:] if find_spec(name)]
    name = installed[0] if decoder == "auto" and installed else decoder
    if name not in installed:
        raise ConfigError(f"decoder: {decoder} needs a package that is not installed; install av or decord")
    if name == "av":
        from lavis_evlgen.datasets.av_reader import read
    else:
        from lavis_evlgen.datasets.decord_reader import read
    return read

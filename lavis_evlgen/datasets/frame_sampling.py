"""Which frames of a clip are read: always exactly T, in order, whatever the clip's length."""

from collections.abc import Callable

import torch
from torch import Tensor

from lavis_evlgen.errors import ConfigError

SAMPLINGS = ("uniform", "headtail", "random")

Choose = Callable[[int], list[int]]
"""From the number of frames of a clip to the sorted indices of those to read."""


def sample_frames(length: int, count: int, sampling: str = "uniform") -> list[int]:
    """Sorted indices of ``count`` frames of a clip of ``length`` frames; clips shorter than that repeat frames.

    - ``uniform``: the middle frame of each of ``count`` equal segments, the same at every call. LAVIS takes the first
      frame of each segment instead: its frames lie half a segment earlier, begin with frame 0, which is often black or
      a title, and leave the end unseen. It also loses or gains a frame for some counts (7, 11, 13, ...).
    - ``headtail``: half of the frames drawn from the clip's first half, half from its second, as LAVIS does for
      training. Of an odd count (which LAVIS rounds down) and of an odd length the second half has one more.
    - ``random``: frames drawn from the whole clip.

    Draws are without replacement where there are enough frames, and come from torch's global generator.

    Raises:
        ConfigError: an unknown sampling, or ``count`` < 1.
        ValueError: ``length`` < 1.
    """
    check_sampling(count, sampling)
    if length < 1:
        raise ValueError("a clip without frames")
    if sampling == "uniform":
        return [(2 * segment + 1) * length // (2 * count) for segment in range(count)]
    if sampling == "random":
        return _drawn(0, length, count)
    middle, head = length // 2, count // 2
    if middle == 0:
        return _drawn(0, length, count)
    return _drawn(0, middle, head) + _drawn(middle, length, count - head)


def check_sampling(count: int, sampling: str) -> None:
    """Raise ConfigError for what :func:`sample_frames` does not do."""
    if sampling not in SAMPLINGS:
        raise ConfigError(f"sampling: {sampling!r} is unknown; use {', '.join(SAMPLINGS)}")
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"num_frames must be a whole number from 1 on, not {count!r}")


def spread(length: int, count: int) -> list[int]:
    """Sorted indices that turn ``length`` frames into ``count``: repeats, or omissions, are spread evenly."""
    return [place * length // count for place in range(count)]


def _drawn(start: int, end: int, count: int) -> list[int]:
    """``count`` sorted frames of [start, end); where these are fewer, all of them with evenly spread repeats."""
    length = end - start
    if count > length:
        return [start + index for index in spread(length, count)]
    drawn: Tensor = torch.randperm(length)[:count]
    return sorted(start + index for index in drawn.tolist())

"""Small real video files whose every frame shows its own number, written by PyAV."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (96, 64)  # width, height
BITS = 8
RED, BLUE = (230, 20, 20), (20, 20, 230)


def numbered_frame(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 [H, W, 3]: above, red on the left and blue on the right; below, the number as 8 black or white bars."""
    width, height = size
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2] = RED
    frame[: height // 2, width // 2 :] = BLUE
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        frame[height // 2 :, left:right] = 235 if number >> (BITS - 1 - bit) & 1 else 20
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that a frame [H, W, 3] shows; -1 where it is not upright or not one of ours."""
    frame = np.asarray(frame).astype(float)
    height, width = frame.shape[:2]
    left, right = frame[height // 4, width // 4], frame[height // 4, 3 * width // 4]
    if not (left[0] > 150 > left[2] and right[2] > 150 > right[0]):
        return -1
    below = frame[height * 3 // 4].mean(-1)
    bars = [below[(2 * bit + 1) * width // (2 * BITS)] for bit in range(BITS)]
    return sum((value > 128) << (BITS - 1 - bit) for bit, value in enumerate(bars))


def numbers(frames: Iterable[np.ndarray]) -> list[int]:
    return [number_of(frame) for frame in frames]


def write_clip(
    path: Path,
    count: int,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = SIZE,
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rate: int = 10,
    turn: tuple[int, bool] = (0, False),
) -> Path:
    """A clip of ``count`` numbered frames.

    ``times`` are the frames' presentation times in hundredths of a second; ``turn`` the quarter turns clockwise, and
    whether a mirroring after them, by which a player makes the stored frames upright.
    """
    quarters, mirrored = turn
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size[::-1] if quarters % 2 else size
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1  # threads that are left over would stall forked workers of a loader
        if turn != (0, False):
            stream.set_display_rotation(-90 * quarters, hflip=mirrored)
        stream.codec_context.time_base = Fraction(1, 100) if times else Fraction(1, rate)
        for number in range(count):
            shown = numbered_frame(number, size)
            stored = np.rot90(shown[:, ::-1] if mirrored else shown, quarters)  # back from what is shown
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24")
            frame = frame.reformat(format=pix_fmt, threads=1)
            frame.pts, frame.time_base = (times[number], Fraction(1, 100)) if times else (number, Fraction(1, rate))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path, seconds: float = 0.5) -> Path:
    """A file with an audio stream alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = np.zeros((1, 1024), np.float32)
        for number in range(int(seconds * 16000 / 1024)):
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path

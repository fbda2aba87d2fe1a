"""Small mp4 files that give back the very pixels that went in."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from lavis_evlgen.errors import DataError


def write_clip(path: str | Path, frames: Sequence[np.ndarray], frames_per_second: int = 6) -> None:
    """Write frames, uint8 [H, W, 3] with even sides, as H.264 without loss (RGB, so not for every player).

    Loss would tell a clip from its reverse: an encoder predicts frames from those before them.

    Raises:
        DataError: PyAV is missing, or its FFmpeg has no x264.
    """
    try:
        import av
        from av.codec import Codec

        Codec("libx264rgb", "w")
    except ImportError as error:
        raise DataError("writing clips needs PyAV; run: pip install av") from error
    except ValueError as error:
        raise DataError("PyAV's FFmpeg has no libx264rgb; use PyAV's own wheels: pip install av") from error
    height, width, _ = frames[0].shape
    with av.open(str(path), "w") as file:
        # one thread and a fixed preset: the same frames give the same bytes
        options = {"qp": "0", "preset": "veryfast", "threads": "1"}
        stream = file.add_stream("libx264rgb", rate=Fraction(frames_per_second), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        file.mux(stream.encode())

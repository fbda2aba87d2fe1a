"""Chosen frames of a video file by decord, for where PyAV is not installed."""

from pathlib import Path

import decord
import numpy as np
import torch

from lavis_evlgen.datasets.clip_errors import ClipError
from lavis_evlgen.datasets.frame_sampling import Choose

# decord cannot count the frames of these, or finds other ones than it was asked for
NOT_INDEXED = (".gif", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob")
NO_REPEATS = 1e-9  # the share of frames it counts but does not find, and replaces by the last one, that is tolerated


def read(path: str, choose: Choose) -> np.ndarray:
    """The chosen frames, uint8 [T, H, W, 3].

    Raises:
        ClipError: a kind of file that decord does not read right, or a file in which it finds no frame.
        Exception: of several kinds, where the file cannot be opened or decoded, or holds fewer frames than counted.
    """
    if Path(path).suffix.lower() in NOT_INDEXED:
        raise ClipError(f"decord does not read {Path(path).suffix} files right; install av")
    reader = decord.VideoReader(path, num_threads=1, fault_tol=NO_REPEATS)
    if not len(reader):
        raise ClipError("no frame in it")
    frames = reader.get_batch(choose(len(reader)))
    # `import lavis` makes decord give torch tensors; alone it gives arrays of its own
    return frames.numpy() if isinstance(frames, torch.Tensor) else frames.asnumpy()

"""Pictures and clips: everything that reads them reads one that is made for it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM, Result, described

_FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "AVIF": "avif"}
_FRAMES, _SIDE = 8, 64


def check_pictures() -> Iterator[Result]:
    from PIL import Image

    reads, fails = [], {}
    for kind in _FORMATS:
        try:
            file = io.BytesIO()
            Image.new("RGB", (_SIDE, _SIDE), (250, 20, 20)).save(file, kind)
            found = Image.open(file).convert("RGB").tobytes()[:3]
            if found[0] < 200 or max(found[1:]) > 80:
                raise ValueError(f"red became {tuple(found)}")
            reads.append(kind)
        except (KeyError, OSError, ValueError) as error:
            fails[kind] = described(error)
    yield OK, f"Pillow reads {', '.join(reads)}"
    for kind, reason in fails.items():
        text = f"Pillow does not read {kind} ({reason}): such pictures count as unreadable"
        yield (PROBLEM, text, "pip install --force-reinstall pillow") if kind in ("JPEG", "PNG") else (NOTE, text)


def check_torchvision() -> Iterator[Result]:
    """Its operators are compiled for one version of torch and fail to load beside another."""
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist()
    if kept != [0]:
        raise RuntimeError(f"torchvision.ops.nms gives {kept} instead of [0]")
    yield OK, f"torchvision {torchvision.__version__} fits torch {torch.__version__}"


def check_opencv() -> Iterator[Result]:
    import cv2
    import numpy as np

    if cv2.resize(np.full((4, 4, 3), 7, np.uint8), (2, 2)).tolist() != [[[7] * 3] * 2] * 2:
        raise RuntimeError("OpenCV resizes wrong")
    yield OK, f"OpenCV {cv2.__version__} with numpy {np.__version__}"


def check_av() -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        try:
            write_clip(clip)
        except ImportError as error:
            yield NOTE, f"{described(error)}: clips are read by decord (pip install av)"
            return
        import av

        with av.open(str(clip)) as container:
            frames = sum(1 for _ in container.decode(video=0))
    if frames != _FRAMES:
        raise RuntimeError(f"PyAV finds {frames} of {_FRAMES} frames")
    missing = [name for name in ("h264", "hevc", "vp9", "av1") if name not in av.codecs_available]
    yield OK, f"PyAV {av.__version__} reads clips"
    if missing:
        yield NOTE, f"this PyAV knows no {', '.join(missing)}"


def check_decord() -> Iterator[Result]:
    """LAVIS imports it, whatever reads the clips."""
    import decord

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        try:
            write_clip(clip)
        except ImportError:
            yield OK, f"decord {decord.__version__} is there; without PyAV there is no clip to try it on"
            return
        frames = len(decord.VideoReader(str(clip), num_threads=1))
    if frames != _FRAMES:
        raise RuntimeError(f"decord finds {frames} of {_FRAMES} frames")
    yield OK, f"decord {decord.__version__} reads clips"


def write_clip(path: Path) -> None:
    """Eight frames of growing grey, MPEG-4."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = _SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(_FRAMES):
            pixels = np.full((_SIDE, _SIDE, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())

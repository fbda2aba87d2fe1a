"""What people upload: recognised by its content, measured before it is decoded, and made ready for every model."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lavis_evlgen.datasets.bad_samples import HEIC, BadSample, decode_picture, is_heic, picture_formats
from lavis_evlgen.datasets.clip_errors import ClipError
from lavis_evlgen.datasets.video_reading import measure_clip, read_clip
from lavis_evlgen.errors import DataError
from lavis_evlgen.page.served import Served
from lavis_evlgen.reports.tokens import states
from lavis_evlgen.reports.tokens.states import Shown

SIDE = 672  # pixels of the longer side of what is kept to be shown
_MEGA = 1_000_000
# the first bytes of the containers that are read; PyAV alone would also follow playlists to other files
_CONTAINERS = {
    ".mp4": (4, (b"ftyp", b"moov", b"mdat", b"wide", b"free")),
    ".mkv": (0, (b"\x1a\x45\xdf\xa3",)),
    ".avi": (8, (b"AVI ",)),
}
MIDDLE = "This model captions single pictures: you see what it says of the clip's middle frame."
STILL = "This model captions clips: it sees the picture as a clip that stands still."


@dataclass(frozen=True)
class Limits:
    """The largest uploads that are looked at.

    Attributes:
        megabytes: of the file.
        megapixels: of a picture, or of one frame of a clip.
        seconds, frames: of a clip.
    """

    megabytes: float = 20
    megapixels: float = 40
    seconds: float = 60
    frames: int = 1800

    @property
    def bytes(self) -> int:
        return int(self.megabytes * _MEGA)

    def in_words(self) -> str:
        return (
            f"Pictures (JPEG, PNG, WebP, …) and clips (MP4, MOV, WebM, MKV, AVI, GIF) up to {self.megabytes:g} MB; "
            f"clips up to {self.seconds:g} seconds."
        )


@dataclass(frozen=True)
class Upload:
    """A picture or clip, ready for every model.

    Attributes:
        kind: "picture" or "clip".
        preview: at most SIDE pixels wide and high; of a clip its middle frame.
        inputs: by the model's name, the batch that it takes and the frames of it to show.
        notes: by the model's name, what it does with this kind; empty where there is nothing to say.
    """

    kind: str
    preview: Image.Image
    inputs: dict[str, Shown]
    notes: dict[str, str]


def read_upload(data: bytes, name: str, served: Sequence[Served], limits: Limits) -> Upload:
    """Check and decode a file. Nothing of it stays on disk.

    Raises:
        DataError: it is too large, too long, damaged, or neither a picture nor a clip; the message says what to do.
    """
    check_size(len(data), limits)
    suffix = _container(data)
    if suffix is None:
        return _picture(data, name, served, limits)
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(data)
        file.flush()
        try:
            return _clip(Path(file.name), name, served, limits)
        except ClipError as error:
            raise DataError(f"the clip cannot be read: {error}") from error


def check_size(size: int, limits: Limits) -> None:
    """Raise DataError for a file of more bytes than are taken."""
    if size > limits.bytes:
        raise DataError(f"the file has {size / _MEGA:.1f} MB; the page takes up to {limits.megabytes:g} MB")


def _container(data: bytes) -> str | None:
    """The suffix of a clip's container by its first bytes; None for anything else."""
    for suffix, (place, marks) in _CONTAINERS.items():
        if data[place : place + 4] in marks and not (_is_avif(data) or is_heic(data)):
            return suffix
    return ".gif" if data[:4] == b"GIF8" and _moves(data) else None


def _is_avif(data: bytes) -> bool:
    """Pictures in the container of clips."""
    return data[4:12] in (b"ftypavif", b"ftypavis")


def _moves(data: bytes) -> bool:
    """Whether a gif has several frames; a damaged one is left to the reader of pictures to complain about."""
    try:
        with Image.open(io.BytesIO(data), formats=["GIF"]) as picture:
            return bool(getattr(picture, "is_animated", False))
    except Exception:  # PIL raises a dozen kinds of exception on damaged files
        return False


def _picture(data: bytes, name: str, served: Sequence[Served], limits: Limits) -> Upload:
    try:
        with Image.open(io.BytesIO(data), formats=picture_formats()) as header:  # reads no pixels
            width, height = header.size
    except Image.DecompressionBombError:
        raise DataError(
            f"the picture has too many pixels; the page takes up to {limits.megapixels:g} million"
        ) from None
    except Exception:  # PIL raises a dozen kinds of exception on damaged files
        what = HEIC if is_heic(data) else "no picture or clip that can be read"
        raise DataError(f"this is {what}. {limits.in_words()}") from None
    _check_pixels(width, height, "picture", limits)
    try:
        picture = decode_picture(data)
    except ValueError as error:
        raise DataError(f"the picture cannot be read: {error}") from error
    shown = _small(picture)
    inputs, notes = {}, {}
    for each in served:
        if each.takes_clips:
            inputs[each.name], notes[each.name] = _standing_still(each, picture, name), STILL
        else:
            inputs[each.name], notes[each.name] = _as_picture(each, picture, shown, name), ""
    return Upload("picture", shown, inputs, notes)


def _clip(path: Path, name: str, served: Sequence[Served], limits: Limits) -> Upload:
    size = measure_clip(path, limits.frames)
    if size.seconds > limits.seconds:
        raise DataError(f"the clip lasts {size.seconds:.0f} seconds; the page takes up to {limits.seconds:g}: cut it")
    if size.frames > limits.frames:
        raise DataError(f"the clip has more than {limits.frames} frames; cut it, or save it with fewer a second")
    _check_pixels(size.width, size.height, "clip's frame", limits)
    middle = Image.fromarray(read_clip(path, 1)[0].numpy())
    shown = _small(middle)
    inputs, notes = {}, {}
    for each in served:
        if each.takes_clips:
            found = states.read(each.model, each.process, str(path))
            if isinstance(found, BadSample):
                raise DataError(f"the clip cannot be read: {found.reason}")
            inputs[each.name], notes[each.name] = replace(found, path=name), ""
        else:
            inputs[each.name], notes[each.name] = _as_picture(each, middle, shown, name), MIDDLE
    return Upload("clip", shown, inputs, notes)


def _check_pixels(width: int, height: int, what: str, limits: Limits) -> None:
    if width * height > limits.megapixels * _MEGA:
        raise DataError(f"the {what} has {width} x {height} pixels; the page takes up to {limits.megapixels:g} million")


def _small(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def _as_picture(served: Served, picture: Image.Image, shown: Image.Image, name: str) -> Shown:
    return Shown(name, [shown], {"image": served.process(picture)[None]}, served.visual_tokens)


def _standing_still(served: Served, picture: Image.Image, name: str) -> Shown:
    """A picture for a model of clips: the same frame T times."""
    process: Any = served.process
    if not hasattr(process, "from_frames"):
        raise DataError(f"{served.name} takes only clips: upload a clip, or serve a model of pictures")
    frames = torch.from_numpy(np.array(picture))[None].expand(process.num_frames, -1, -1, -1)
    clip = process.from_frames(frames)
    shown = states.frames_seen(process, clip[:, :1])
    return Shown(name, shown, {"video": clip[None]}, served.visual_tokens)

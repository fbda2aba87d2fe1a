"""Damaged samples: how they are found, carried through a data loader and left out of a batch.

A data set returns a :class:`BadSample` in the place of a sample that it cannot read, and :func:`collate` leaves it
out of the batch and lists it under ``bad_samples``, so that one broken file neither stops a run nor passes unseen.
"""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import default_collate

from lavis_evlgen.errors import DataError

LARGEST_FILE = 1 << 29
# PIL also knows files that are programs (it runs Ghostscript on EPS) and collections of other files
_FORMATS = frozenset(["AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"])
# what phones write; its container is that of clips
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIC = "a HEIC picture, which PIL cannot read: save it as JPEG or PNG"


@dataclass(frozen=True)
class BadSample:
    """A sample that could not be read.

    LAVIS's ``ConcatDataset.collater`` keeps only the keys that all samples of a batch share and copies every sample
    into a new dict. A bad sample therefore offers every key it is told of and answers with itself, so that
    :func:`split_bad` still recognises the copy and the good samples of that batch keep their keys.
    """

    path: str
    reason: str
    fields: tuple[str, ...] = ("image", "video", "vision_features", "text_input", "image_id", "instance_id")

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"

    def keys(self) -> tuple[str, ...]:
        return self.fields

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __getitem__(self, key: str) -> "BadSample":
        return self


def split_bad(samples: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Good samples, and one ``path: reason`` for each bad one."""
    good, bad = [], []
    for sample in samples:
        if isinstance(sample, BadSample):
            bad.append(str(sample))
        elif any(isinstance(value, BadSample) for value in sample.values()):
            bad.append(str(next(value for value in sample.values() if isinstance(value, BadSample))))
        else:
            good.append(sample)
    return good, bad


def collate(samples: Sequence[Any]) -> dict[str, Any]:
    """Batch of the good samples; ``bad_samples`` lists the others, alone when there is no good one.

    Raises:
        DataError: tensors of one key differ in shape.
    """
    good, bad = split_bad(samples)
    for key, first in good[0].items() if good else ():
        shapes = {tuple(sample[key].shape) for sample in good if isinstance(first, Tensor)}
        if len(shapes) > 1:
            raise DataError(
                f"samples of one batch differ in the shape of {key!r}: {', '.join(map(str, sorted(shapes)))}; give all "
                "data sets that are mixed in a batch the same image_size and num_frames"
            )
    batch = default_collate(good) if good else {}
    return {**batch, "bad_samples": bad} if bad else batch


class _CompleteStream(io.BytesIO):
    """Bytes of a picture file; asking for more than there are is an error once the header has been read."""

    decoding = False

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.decoding and size and not data:
            raise OSError("the file is truncated")
        return data


def decode_picture(data: bytes) -> Image.Image:
    """RGB picture from the bytes of its file, the way up that its EXIF data says.

    LAVIS sets PIL's global LOAD_TRUNCATED_IMAGES, which fills the missing part of a cut-off file with grey, and what
    comes behind a damaged byte of a PNG with anything. The stream raises instead when the decoder runs out of bytes,
    the checksums of a PNG are looked at before, and the global stays as LAVIS wants it.

    Raises:
        ValueError: the bytes are no picture, are damaged or cut off; the message says which.
    """
    if not data:
        raise ValueError("the file is empty")
    stream = _CompleteStream(data)
    try:
        picture = Image.open(stream, formats=picture_formats())
        if picture.format == "PNG":
            Image.open(io.BytesIO(data), formats=["PNG"]).verify()
        stream.decoding = True
        picture.load()
        return _upright_rgb(picture)
    except Image.UnidentifiedImageError:
        raise ValueError(HEIC if is_heic(data) else "not a picture that PIL can read") from None
    except Exception as error:  # PIL's plugins raise a dozen kinds of exception on damaged files
        raise ValueError(f"damaged picture ({error})") from error


def _upright_rgb(picture: Image.Image) -> Image.Image:
    with suppress(Exception):  # EXIF data is often damaged where the pixels are whole
        ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        # 16 bits of grey, of which PIL's convert makes white all but the darkest
        grey = np.clip(np.asarray(picture).astype(np.int64) >> 8, 0, 255)
        picture = Image.fromarray(grey.astype(np.uint8))
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # convert copies in any case


def is_heic(data: bytes) -> bool:
    """Whether a file that PIL does not know is a picture of a phone."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC


@cache
def picture_formats() -> list[str]:
    """The kinds of pictures that are read, those of them that this PIL knows."""
    Image.init()
    return sorted(_FORMATS & Image.OPEN.keys())


def picture_bytes(path: str | Path) -> bytes:
    """The content of a picture's file.

    Raises:
        OSError, ValueError: it is missing, no ordinary file (a device may never end), or too large.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("not a file")
    with open(path, "rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > LARGEST_FILE:
            raise ValueError(f"too large for a picture ({size} bytes)")
        return file.read()


def read_picture(path: str | Path) -> Image.Image | BadSample:
    """RGB picture of a file, or what is wrong with the file."""
    try:
        return decode_picture(picture_bytes(path))
    except FileNotFoundError:
        return BadSample(str(path), "no such file")
    except (OSError, ValueError) as error:
        return BadSample(str(path), str(error))

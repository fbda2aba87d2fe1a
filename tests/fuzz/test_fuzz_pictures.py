"""Picture files: damaged, of a huge size, programs, and paths that are no files."""

import os

import pytest
from guard import put
from hypothesis import strategies as st
from mutations import PICTURES, damaged, picture
from PIL import Image

from lavis_evlgen.datasets.bad_samples import BadSample, decode_picture, read_picture


def test_pictures(fuzz, guard):
    def check(data: bytes) -> None:
        path = put(guard.inside / "x.jpg", data)
        found = guard.read(read_picture, path)
        assert found.mode == "RGB" if isinstance(found, Image.Image) else found.reason

    fuzz(check, st.sampled_from(PICTURES).flatmap(damaged), 200)


def test_pictures_that_are_programs_are_not_run(guard):
    """PIL gives EPS to Ghostscript, whatever the file is called."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(%pipe%touch x) (w) file\n%%EOF\n"
    with pytest.raises(ValueError, match="not a picture that PIL can read"):
        guard.read(decode_picture, eps)


def test_pictures_of_a_huge_size_are_refused(guard):
    """The header alone; PIL's own limit of 179 million pixels is kept."""
    data = bytearray(picture("PNG"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = b"\0" * 4
    bmp = bytearray(picture("BMP"))
    bmp[18:26] = (60_000).to_bytes(4, "little") * 2
    for each in (bytes(data), bytes(bmp)):
        with pytest.raises(ValueError, match="damaged picture|not a picture"):
            guard.read(decode_picture, each)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "a\0b", "x" * 5000, "\ud800"])
def test_pictures_that_are_no_files_are_bad_samples(guard, path):
    assert isinstance(guard.read(read_picture, path), BadSample)
    os.mkfifo(guard.inside / "fifo.jpg")
    assert guard.read(read_picture, guard.inside / "fifo.jpg").reason == "not a file"

import io

import numpy as np
import pytest
import torch
from lavis.datasets.datasets.base_dataset import ConcatDataset
from PIL import Image, ImageFile
from torch.utils.data import Dataset

from lavis_evlgen.datasets.bad_samples import BadSample, collate, decode_picture, read_picture


def picture_bytes(kind: str = "JPEG", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(params=[True, False], ids=["lavis_flag_on", "lavis_flag_off"])
def truncation_flag(request, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", request.param)
    return request.param


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("BMP", {})],
)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_cut_off_files_are_found_whatever_the_global_flag(truncation_flag, kind, options, share):
    data = picture_bytes(kind, **options)
    assert decode_picture(data).size == (80, 60)
    with pytest.raises(ValueError, match="damaged|not a picture"):
        decode_picture(data[: int(len(data) * share)])
    assert truncation_flag == ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_jpeg_that_lacks_only_its_last_byte_is_truncated(truncation_flag):
    with pytest.raises(ValueError, match="truncated"):
        decode_picture(picture_bytes()[:-1])


def test_a_flipped_bit_among_the_pixels_of_a_png_is_found(truncation_flag):
    data = picture_bytes("PNG")
    first = data.index(b"IDAT") + 6
    for place in range(first, len(data) - 20, (len(data) - first) // 25):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match="damaged picture"):
            decode_picture(bytes(flipped))


def test_decoding_gives_the_same_pixels_as_pil_and_tolerates_trailing_bytes(truncation_flag):
    data = picture_bytes()
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(np.asarray(decode_picture(data + b"\0" * 50)), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_photo_stands_as_its_camera_was_held(truncation_flag, kind, orientation, turn):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif)
    seen = np.asarray(decode_picture(buffer.getvalue()))
    expected = np.rot90(pixels, turn)
    assert seen.shape == expected.shape
    assert np.abs(seen.astype(int) - expected).mean() < 20, "up to what JPEG and WebP lose"


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_damaged_exif_data_spoils_no_picture(truncation_flag, kind):
    data = picture_bytes(kind, exif=b"no header of a TIFF file")
    with pytest.raises(SyntaxError):
        Image.open(io.BytesIO(data)).getexif()
    assert decode_picture(data).size == (80, 60)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_of_grey_become_eight(truncation_flag, kind):
    grey = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, kind)
    assert np.asarray(decode_picture(buffer.getvalue()))[0].tolist() == [[value] * 3 for value in (0, 0, 1, 128, 255)]


def test_a_picture_of_a_phone_is_called_so():
    with pytest.raises(ValueError, match="a HEIC picture, which PIL cannot read: save it as JPEG or PNG"):
        decode_picture(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"no picture at all", "not a picture")])
def test_other_bytes_are_named_for_what_they_are(data, reason):
    with pytest.raises(ValueError, match=reason):
        decode_picture(data)


def test_read_picture_says_what_is_wrong_with_a_file(tmp_path):
    assert str(read_picture(tmp_path / "no.jpg")) == f"{tmp_path / 'no.jpg'}: no such file"
    (tmp_path / "text.jpg").write_text("hello")
    assert read_picture(tmp_path / "text.jpg").reason == "not a picture that PIL can read"
    assert isinstance(read_picture(tmp_path), BadSample)


GOOD = {"image": torch.ones(3, 2, 2), "text_input": "a cat", "image_id": "1"}


def test_collate_leaves_bad_samples_out_and_lists_them():
    batch = collate([GOOD, BadSample("a.jpg", "truncated"), GOOD])
    assert batch["image"].shape == (2, 3, 2, 2)
    assert batch["text_input"] == ["a cat", "a cat"]
    assert batch["bad_samples"] == ["a.jpg: truncated"]
    assert set(collate([GOOD])) == {"image", "text_input", "image_id"}
    assert collate([BadSample("a.jpg", "truncated")]) == {"bad_samples": ["a.jpg: truncated"]}


class OneGoodOneBad(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return [GOOD, BadSample("a.jpg", "truncated")][index]

    def collater(self, samples):
        return collate(samples)


def test_bad_samples_survive_lavis_concatenation():
    dataset = ConcatDataset([OneGoodOneBad()])
    batch = dataset.collater([dataset[0], dataset[1]])
    assert batch["image_id"] == ["1"]
    assert batch["text_input"] == ["a cat"]
    assert batch["bad_samples"] == ["a.jpg: truncated"]

"""What is taken, what is refused and with which words."""

import io
import struct
import tempfile
import zlib

import av
import numpy as np
import pytest
import torch
from PIL import Image
from video_files import number_of, write_clip

from lavis_evlgen.errors import DataError
from lavis_evlgen.page.uploads import MIDDLE, STILL, Limits, read_upload
from lavis_evlgen.reports.tokens.states import Shown

LIMITS = Limits(megabytes=1, megapixels=1, seconds=3, frames=40)


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


PICTURE = Image.new("RGB", (80, 60), (200, 40, 30))


def refusal(data: bytes, served, limits: Limits = LIMITS) -> str:
    with pytest.raises(DataError) as error:
        read_upload(data, "name.jpg", served, limits)
    return str(error.value)


@pytest.fixture
def clip(tmp_path) -> bytes:
    return write_clip(tmp_path / "clip.mp4", 21).read_bytes()


def test_a_picture_is_made_ready_for_every_model(served):
    image, _, video = served
    upload = read_upload(encoded(PICTURE), "a.txt", served, LIMITS)
    assert upload.kind == "picture" and upload.preview.size == (80, 60), "known by its content, not by its name"
    assert torch.equal(upload.inputs[image.name].samples["image"], image.process(PICTURE)[None])
    standing = upload.inputs[video.name].samples["video"]
    assert standing.shape[:3] == (1, 3, video.process.num_frames)
    assert torch.equal(standing[:, :, 0], standing[:, :, -1]) and len(upload.inputs[video.name].frames) == 1
    assert upload.notes == {image.name: "", served[1].name: "", video.name: STILL}


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_kinds_of_pictures(served, kind):
    assert read_upload(encoded(PICTURE, kind), "", served[:1], LIMITS).kind == "picture"


def test_a_photo_is_shown_and_seen_as_the_camera_was_held(served):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    upload = read_upload(encoded(PICTURE, exif=exif), "", served[:1], LIMITS)
    assert upload.preview.size == (60, 80)
    assert upload.inputs[served[0].name].frames[0].size == (60, 80)


def test_a_large_picture_is_shown_small_and_seen_whole(served):
    picture = Image.linear_gradient("L").resize((1000, 500)).convert("RGB")
    upload = read_upload(encoded(picture), "", served[:1], LIMITS)
    assert upload.preview.size == (672, 336)
    assert torch.equal(upload.inputs[served[0].name].samples["image"], served[0].process(picture)[None])


def test_a_clip_is_seen_whole_by_models_of_clips_and_by_its_middle_elsewhere(served, clip):
    image, _, video = served
    upload = read_upload(clip, "clip", served, LIMITS)
    assert upload.kind == "clip" and number_of(np.array(upload.preview)) == 10
    assert upload.notes[image.name] == MIDDLE and upload.notes[video.name] == ""
    whole = upload.inputs[video.name]
    assert isinstance(whole, Shown) and whole.path == "clip" and len(whole.frames) == video.process.num_frames
    still = upload.inputs[image.name].samples["image"]
    assert torch.equal(still, image.process(upload.preview)[None])


@pytest.mark.parametrize("suffix", ["mkv", "avi", "mov"])
def test_kinds_of_clips(served, tmp_path, suffix):
    data = write_clip(tmp_path / f"clip.{suffix}", 5, "mpeg4" if suffix == "avi" else "libx264").read_bytes()
    assert read_upload(data, "", served[:1], LIMITS).kind == "clip"


def test_a_gif_that_moves_is_a_clip(served):
    frames = [Image.new("RGB", (64, 64), (80 * number, 0, 0)) for number in range(3)]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    assert read_upload(moving, "", served[:1], LIMITS).kind == "clip"


def test_what_is_no_picture(served, clip):
    assert refusal(b"", served).startswith("this is no picture or clip that can be read. Pictures (JPEG")
    assert refusal(b"<svg/>" * 99, served).startswith("this is no picture or clip")
    assert refusal(encoded(PICTURE, "PDF"), served).startswith("this is no picture or clip")
    assert refusal(encoded(PICTURE, "EPS"), served).startswith("this is no picture or clip")
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
    assert refusal(heic, served).startswith("this is a HEIC picture, which PIL cannot read: save it as JPEG or PNG. ")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
    assert "the picture cannot be read: damaged picture" in refusal(encoded(noise)[:-9000], served)
    assert "the clip cannot be read: damaged" in refusal(clip[:200], served)
    assert "the clip cannot be read" in refusal(clip[: len(clip) // 2], served)


def test_a_playlist_reads_no_other_file(served, tmp_path):
    (tmp_path / "secret.png").write_bytes(encoded(PICTURE))
    for text in (f"ffconcat version 1.0\nfile '{tmp_path}/secret.png'\n", f"#EXTM3U\n{tmp_path}/secret.png\n"):
        assert refusal(text.encode(), served).startswith("this is no picture or clip")


def test_files_that_are_too_large(served):
    assert refusal(bytes(1_000_001), served) == "the file has 1.0 MB; the page takes up to 1 MB"
    assert "1200 x 900 pixels; the page takes up to 1 million" in refusal(encoded(PICTURE.resize((1200, 900))), served)


def test_a_bomb_is_refused_before_it_is_unpacked(served):
    """A PNG of some hundred bytes that claims 60000 x 60000 pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(999))), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts:
        bomb += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    assert refusal(bomb, served) == "the picture has too many pixels; the page takes up to 1 million"


def test_clips_that_are_too_long_or_too_wide(served, tmp_path):
    long = write_clip(tmp_path / "long.mp4", 20, rate=4).read_bytes()
    assert refusal(long, served) == "the clip lasts 5 seconds; the page takes up to 3: cut it"
    many = write_clip(tmp_path / "many.mp4", 60, rate=60).read_bytes()
    assert refusal(many, served).startswith("the clip has more than 40 frames")
    wide = write_clip(tmp_path / "wide.mp4", 3, size=(1280, 960)).read_bytes()
    assert "the clip's frame has 1280 x 960 pixels" in refusal(wide, served)


def test_sound_alone_is_no_clip(served, tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    assert "sound alone" in refusal((tmp_path / "sound.mp4").read_bytes(), served)


def test_nothing_stays_on_disk(served, clip, tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    read_upload(clip, "", served, LIMITS)
    refusal(clip[:200], served)
    assert list(folder.iterdir()) == []

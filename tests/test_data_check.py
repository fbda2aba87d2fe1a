"""What the check of somebody's own data finds."""

import itertools
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lavis_evlgen import data_check
from lavis_evlgen.data_check import Item, _edges, check_data


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        Image.effect_noise((20 + 10 * number, 16), 80).convert("RGB").save(tmp_path / f"{number}.png")
    shutil.copy(tmp_path / "0.png", tmp_path / "copy of 0.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "5.png").read_bytes()[:300])
    (tmp_path / "same size.png").write_bytes(bytes(reversed((tmp_path / "1.png").read_bytes())))
    return tmp_path


def items(*files: str) -> list[Item]:
    return [Item(file, ["a picture of noise", f"noise number {n}"]) for n, file in enumerate(files)]


def test_everything_that_is_wrong_is_found(folder):
    given_items = [
        *items("0.png", "1.png", "copy of 0.png", "cut.png", "gone.png", "same size.png"),
        Item("2.png", ["A cat", "a  CAT", "a dog"]),
    ]
    found = check_data(given_items, folder, empty=3, count_tokens=lambda texts: [2 * len(t.split()) for t in texts])
    assert (found.files, found.texts, found.empty, found.decoded) == (7, 15, 3, 6)
    assert found.missing == ["gone.png"]
    assert (
        found.unreadable.keys() == {"cut.png", "same size.png"} and "truncated" in found.unreadable["cut.png"].lower()
    )
    assert found.bad == {"gone.png", "cut.png", "same size.png"}
    assert found.same == [["0.png", "copy of 0.png"]]
    assert found.repeated == [("2.png", "a  CAT")]
    assert sorted(found.sizes) == [(20, 16), (20, 16), (30, 16), (40, 16)]
    assert found.lengths["words"][-3:] == [2, 2, 2] and found.lengths["tokens"][-3:] == [4, 4, 4]
    assert found.lengths["characters"][:2] == [18, 14]


def test_the_report_says_it(folder):
    lines = check_data([*items("0.png", "gone.png"), Item("1.png", ["a cat"] * 2)], folder, empty=1).report()
    text = "\n".join(lines)
    for part in (
        "3 pictures, 6 captions",
        "missing pictures: 1, e.g. gone.png",
        "unreadable pictures (all were opened): none",
        "repeated captions of one picture: 1, e.g. 1.png: 'a cat'",
        "empty captions: 1",
        "sizes: 20x16 to 30x16, median 30x16",
        "words: median 3, 95 % up to 4, longest 4",
    ):
        assert part in text
    bars = [line.split() for line in lines if "#" in line]
    assert bars == [["2", "#" * 40, "2"], ["3", "#" * 40, "2"], ["4", "#" * 40, "2"]]


def test_many_pictures_are_sampled_unless_all_are_asked_for(folder, monkeypatch):
    monkeypatch.setitem(data_check.DECODED, "image", 2)
    some = check_data(items("0.png", "1.png", "2.png", "cut.png"), folder)
    assert some.decoded == 2 and "(2 drawn at random were opened)" in "\n".join(some.report())
    assert check_data(items("0.png", "1.png", "2.png", "cut.png"), folder).sizes == some.sizes
    assert check_data(items("0.png", "1.png", "2.png", "cut.png"), folder, decode_all=True).unreadable.keys() == {
        "cut.png"
    }


def test_clips_are_opened_too(tmp_path):
    from video_files import write_clip

    write_clip(tmp_path / "a.mp4", 6)
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    found = check_data([Item("a.mp4", ["x"]), Item("bad.mp4", ["y"]), Item("gone.mp4", ["z"])], tmp_path, "video")
    assert found.sizes == [(96, 64)] and found.missing == ["gone.mp4"] and list(found.unreadable) == ["bad.mp4"]
    assert found.report()[0] == "3 clips, 3 captions"


@given(st.integers(0, 500), st.integers(0, 500))
def test_bins_cover_all_lengths_and_are_few(low, span):
    edges = _edges(low, low + span)
    assert edges[0] == low and edges[-1] > low + span and len(edges) <= data_check.BINS + 1
    assert len({high - before for before, high in itertools.pairwise(edges)}) == 1

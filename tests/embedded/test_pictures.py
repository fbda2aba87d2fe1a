"""Embedded pictures: what they show is what they say, splits do not leak, building is repeatable."""

import json
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("resvg_py")
pytest.importorskip("emoji")

from lavis_evlgen.embedded.drawing import draw, sticker
from lavis_evlgen.embedded.pictures import build
from lavis_evlgen.embedded.scenes import BACKGROUNDS, PLACES, RELATIONS, SIZES, Scene, split_scenes
from lavis_evlgen.embedded.things import Thing, things
from lavis_evlgen.errors import ConfigError, DataError


def read(folder, split):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text("utf-8").splitlines()]


def single(name="dog", size="small", background="yellow", place="left"):
    thing = next(thing for thing in things() if thing.name == name)
    return Scene((thing,), (size,), background, place)


def ink(picture):
    """Where a picture is not background: bounding box (left, top, right, bottom) as shares of its side."""
    pixels = np.asarray(picture).astype(int)
    rows, columns = np.nonzero(np.abs(pixels - pixels[0, 0]).max(axis=2) > 12)
    side = picture.width
    return columns.min() / side, rows.min() / side, (columns.max() + 1) / side, (rows.max() + 1) / side


def test_there_are_many_things_with_different_short_names():
    everything = things()
    names = [thing.name for thing in everything]
    assert len(everything) >= 400
    assert len(set(names)) == len({thing.svg for thing in everything}) == len(names)
    assert all(thing.svg.is_file() for thing in everything)
    assert all(name == name.lower() and name.isascii() and 1 <= len(name.split()) <= 3 for name in names)
    said_elsewhere = {*SIZES, *BACKGROUNDS, *PLACES}
    assert not [name for name in names if said_elsewhere & set(name.split())]


def test_the_first_things_are_everyday_ones():
    first = [thing.name for thing in things(30)]
    assert {"dog", "cat", "apple", "car", "house", "tree", "chair"} <= set(first)
    assert first == [thing.name for thing in things(300)][:30]


def test_too_many_things_is_an_error():
    with pytest.raises(ConfigError, match="9999 asked for"):
        things(9999)


def test_articles():
    said = {thing.name: thing.phrase() for thing in things()}
    assert said["umbrella"] == "an umbrella" and said["unicorn"] == "a unicorn" and said["ufo"] == "a ufo"
    assert said["grapes"] == "grapes" and said["axe"] == "an axe" and said["house"] == "a house"
    assert things(3)[2].phrase("small") == "a small apple"


def test_captions_of_one_thing():
    assert single().captions() == [
        "a small dog on the left on a yellow background",
        "a yellow picture with a small dog on the left",
        "on a yellow background, a small dog on the left",
        "a small dog on the left of a yellow picture",
    ]


def test_captions_of_two_things():
    dog, _, apple, *_ = things(3)
    assert Scene((dog, apple), ("small", "large"), "blue", "above").captions() == [
        "a small dog above a large apple on a blue background",
        "a large apple below a small dog on a blue background",
        "a blue picture with a small dog above a large apple",
        "on a blue background, a small dog above a large apple",
    ]


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", SIZES)
def test_a_picture_shows_what_it_says(size, place, background):
    for name, seed in product_of(("dog", "umbrella", "soccer ball"), range(3)):
        picture = draw(single(name, size, background, place), 224, f"{seed}")
        left, top, right, bottom = ink(picture)
        assert min(left, top) > 0.01 and max(right, bottom) < 0.99, "cut off or at the border"
        centre = (left + right) / 2
        low, high = {"left": (0, 0.38), "middle": (0.44, 0.56), "right": (0.62, 1)}[place]
        assert low < centre < high
        longest = max(right - left, bottom - top)
        assert (0.22 < longest < 0.36) if size == "small" else (0.42 < longest < 0.64)
        assert np.abs(np.subtract(picture.getpixel((0, 0)), BACKGROUNDS[background])).max() <= 8


def product_of(names, seeds):
    return [(name, seed) for name in names for seed in seeds]


@pytest.mark.parametrize("relation", RELATIONS)
def test_two_things_stand_as_they_say_without_touching(relation):
    """The first is red, the second green: their pixels tell where they are."""
    by_name = {thing.name: thing for thing in things()}
    for sizes in (("small", "large"), ("large", "large")):
        scene = Scene((by_name["tomato"], by_name["cucumber"]), sizes, "white", relation)
        pixels = np.asarray(draw(scene, 224, "0")).astype(int)
        red, green = pixels[..., 0] - pixels[..., 1] > 100, pixels[..., 1] - pixels[..., 0] > 40
        # The tomato has a green stem, the cucumber nothing red: compare middles.
        (y_red, x_red), (y_green, x_green) = (np.median(np.nonzero(mask), axis=1) for mask in (red, green))
        assert {
            "to the left of": x_red < x_green - 50,
            "to the right of": x_red > x_green + 50,
            "above": y_red < y_green - 50,
            "below": y_red > y_green + 50,
        }[relation]


def test_every_drawing_shows_on_every_background():
    """The rim: some pixels of each sticker differ clearly from any ground (dark on dark, white on white)."""
    for thing in random.Random(0).sample(things(), 40):
        cut = sticker(thing.svg)
        pixels = np.asarray(cut).astype(int)
        solid = pixels[pixels[..., 3] > 200][:, :3]
        assert max(cut.size) >= 200 and len(solid) > 2000, thing.name
        for colour in BACKGROUNDS.values():
            assert (np.abs(solid - colour).max(axis=1) > 60).mean() > 0.15, (thing.name, colour)


def composition(scene):
    return scene.things[0].name, scene.sizes[0], scene.background, scene.where


def test_splits_share_no_composition():
    known = things(30)
    parts = {
        split: {composition(scene) for scene in split_scenes(split, known, 3000, 0.0, seed=0)}
        for split in ("train", "val", "test")
    }
    assert {split: len(part) for split, part in parts.items()} == {"train": 720, "val": 180, "test": 180}
    assert len(set.union(*parts.values())) == 30 * 36  # together: all there are


def test_splits_share_no_pair_of_things():
    known = things(30)
    pairs = {
        split: {frozenset(t.name for t in scene.things) for scene in split_scenes(split, known, 2000, 1.0, 0)}
        for split in ("train", "val", "test")
    }
    assert all(len(pair) == 2 for pair in set.union(*pairs.values()))
    assert not pairs["train"] & pairs["val"] and not pairs["train"] & pairs["test"]
    assert not pairs["val"] & pairs["test"]


def test_training_shows_everything_equally_often():
    scenes = split_scenes("train", things(30), 720, 0.0, seed=3)
    assert set(Counter(scene.things[0].name for scene in scenes).values()) == {24}
    assert set(Counter(scene.sizes[0] for scene in scenes).values()) == {360}
    assert set(Counter(scene.background for scene in scenes).values()) == {120}
    assert set(Counter(scene.where for scene in scenes).values()) == {240}
    per_thing = Counter((scene.things[0].name, scene.background) for scene in scenes)
    assert set(per_thing.values()) == {4}


def test_pairs_show_attributes_equally_often():
    scenes = split_scenes("train", things(48), 480, 1.0, seed=3)
    assert set(Counter(scene.things[0].name for scene in scenes).values()) == {10}
    assert set(Counter(scene.where for scene in scenes).values()) == {120}
    assert set(Counter(scene.background for scene in scenes).values()) == {80}
    assert set(Counter(scene.sizes for scene in scenes).values()) == {120}


def test_pairs_need_enough_things():
    with pytest.raises(ConfigError, match="at least 12 things, got 5"):
        split_scenes("train", things(5), 10, 0.5, seed=0)


SMALL = {"things": 12, "train": 36, "val": 6, "test": 12, "unseen": 5, "unseen_things": 2, "image_size": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("data") / "made", **SMALL, two_things=0.25)


def test_build_writes_pictures_and_records(folder):
    sizes = {split: len(read(folder, split)) for split in ("train", "val", "test", "test_unseen")}
    assert sizes == {"train": 36, "val": 6, "test": 12, "test_unseen": 5}
    for record in read(folder, "train") + read(folder, "test_unseen"):
        with Image.open(folder / record["image"]) as picture:
            assert picture.size == (64, 64) and picture.mode == "RGB"
        assert len(record["caption"]) == 4 and record["background"] in record["caption"][0]
        assert all(name in record["caption"][0] for name in record["things"])
    ids = [record["image_id"] for split in sizes for record in read(folder, split)]
    assert len(set(ids)) == 59 and ids[0] == "train_000000"
    one, two = read(folder, "train")[0], read(folder, "train")[-1]
    assert one.keys() == {"image", "image_id", "caption", "things", "background", "size", "place"}
    assert two.keys() == {"image", "image_id", "caption", "things", "background", "sizes", "relation"}
    assert "CC BY-SA 4.0" in (folder / "ATTRIBUTION.txt").read_text("utf-8")


def test_unseen_things_are_never_in_training(folder):
    spec = json.loads((folder / "spec.json").read_text())
    seen = {name for record in read(folder, "train") for name in record["things"]}
    unseen = {name for record in read(folder, "test_unseen") for name in record["things"]}
    assert seen == set(spec["things"]) and unseen == set(spec["unseen_things"])
    assert not seen & unseen


def test_building_again_does_nothing_and_another_spec_rebuilds(tmp_path):
    out = build(tmp_path / "made", **SMALL)
    marker = out / "marker"
    marker.touch()
    before = (out / "train/000007.png").read_bytes()
    assert build(out, **SMALL) == out and marker.exists()
    build(out, **SMALL | {"seed": 1})
    assert not marker.exists() and (out / "train/000007.png").read_bytes() != before
    build(out, **SMALL)
    assert (out / "train/000007.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_composition_drawn_twice_differs_in_pixels():
    first, second = (np.asarray(draw(single(), 96, seed)).astype(int) for seed in "ab")
    assert np.abs(first - second).max() > 50


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="not made by"):
        build(tmp_path, **SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_options_that_do_not_fit(tmp_path):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        build(tmp_path / "a", two_things=30)
    with pytest.raises(ConfigError, match="train=-1"):
        build(tmp_path / "a", train=-1)
    with pytest.raises(ConfigError, match="605 asked for, but"):
        build(tmp_path / "a", things=505, unseen_things=100)
    with pytest.raises(ConfigError, match="image_size=8"):
        build(tmp_path / "a", image_size=8)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_drawing_is_named(tmp_path):
    broken = tmp_path / "broken.svg"
    broken.write_text("<svg")
    with pytest.raises(DataError, match=r"broken\.svg"):
        sticker(broken)
    empty = tmp_path / "empty.svg"
    empty.write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"/>')
    with pytest.raises(DataError, match=r"empty\.svg is an empty drawing"):
        draw(Scene((Thing("void", True, empty),), ("small",), "red", "left"), 64, "0")

"""The frozen ViT's features on disk: right values, computed once, never the wrong ones."""

import json
import logging
import pickle
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from lavis.processors.blip_processors import Blip2ImageTrainProcessor, BlipImageEvalProcessor
from PIL import Image

from lavis_evlgen.datasets import feature_cache, feature_table
from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.datasets.feature_cache import FeatureCache, build_feature_table
from lavis_evlgen.datasets.image_text import ImageCaptionDataset
from lavis_evlgen.errors import ConfigError, DataError

CPU = torch.device("cpu")


def noise(path, side=40) -> None:
    Image.effect_noise((side, 30), 90).convert("RGB").save(path)


def open_dataset(folder):
    return ImageCaptionDataset(BlipImageEvalProcessor(56), str.lower, str(folder), [str(folder / "train.jsonl")])


def add_rows(folder, numbers) -> None:
    with (folder / "train.jsonl").open("a") as file:
        for number in numbers:
            file.write(
                json.dumps({"image": f"{number}.png", "caption": [f"picture {number}", f"it is {number}"]}) + "\n"
            )


@pytest.fixture
def dataset(tmp_path):
    """Five pictures, the last one cut off, two captions each."""
    for number in range(5):
        noise(tmp_path / f"{number}.png", 40 + number)
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:200])
    add_rows(tmp_path, range(5))
    return open_dataset(tmp_path)


@pytest.fixture
def seen(monkeypatch, tiny_model):
    """Numbers of pictures that the ViT was given, one entry a forward pass."""
    counts: list[int] = []
    vision = type(tiny_model("opt").vision)
    forward = vision.forward
    monkeypatch.setattr(vision, "forward", lambda self, images: counts.append(len(images)) or forward(self, images))
    return counts


@pytest.mark.parametrize("shard_pictures", [2, 1000])
def test_items_hold_the_features_of_their_pictures(tmp_path, dataset, tiny_model, monkeypatch, shard_pictures):
    monkeypatch.setattr(feature_cache, "SHARD_PICTURES", shard_pictures)
    vision = tiny_model("opt").vision
    expected = [vision(dataset[index]["image"][None])[0] for index in range(8)]
    table = build_feature_table(dataset, vision, tmp_path / "cache", CPU, batch_size=2)
    dataset.features = pickle.loads(pickle.dumps(table))  # as workers get it
    for index, features in enumerate(expected):
        item = dataset[index]
        assert item.keys() == {"vision_features", "text_input", "image_id"}
        assert item["vision_features"].dtype == torch.float32
        torch.testing.assert_close(item["vision_features"], features, rtol=2e-3, atol=2e-3)  # fp16 on disk
    assert torch.equal(dataset[0]["vision_features"], dataset[1]["vision_features"])
    assert isinstance(dataset[8], BadSample) and "truncated" in dataset[8].reason.lower()
    arrays = sorted((tmp_path / "cache").glob("*.npy"))
    assert [len(np.load(path)) for path in arrays] == ([2, 2, 1] if shard_pictures == 2 else [5])
    assert np.load(arrays[0]).dtype == np.float16


def test_shards_are_bounded_in_bytes(tmp_path, dataset, tiny_model, monkeypatch):
    vision = tiny_model("opt").vision
    picture_bytes = 2 * vision.num_tokens * vision.num_features
    monkeypatch.setattr(feature_cache, "SHARD_BYTES", 3 * picture_bytes + 1)
    build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "cache").glob("*.npy"))]
    assert sizes == [128 + 3 * picture_bytes, 128 + 2 * picture_bytes]  # with npy's header


@pytest.mark.parametrize("workers", [0, 2])
def test_computed_once(tmp_path, dataset, tiny_model, seen, workers):
    vision = tiny_model("opt").vision
    first = build_feature_table(dataset, vision, tmp_path / "cache", CPU, num_workers=workers)
    assert sum(seen) == 4
    again = build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    assert sum(seen) == 4
    assert (again.path, again.rows, again.bad, again.seconds) == (first.path, first.rows, first.bad, first.seconds)
    assert again.rows.keys() == {str(tmp_path / f"{number}.png") for number in range(4)}


def test_an_interrupted_build_goes_on_at_the_shard(tmp_path, dataset, tiny_model, monkeypatch, seen):
    monkeypatch.setattr(feature_cache, "SHARD_PICTURES", 2)
    vision = tiny_model("opt").vision

    class Killed(Exception):
        pass

    with monkeypatch.context() as patch:
        forward = type(vision).forward

        def fails_at_the_third_picture(self, images):
            if sum(seen) == 2:
                raise Killed
            return forward(self, images)

        patch.setattr(type(vision), "forward", fails_at_the_third_picture)
        with pytest.raises(Killed):
            build_feature_table(dataset, vision, tmp_path / "cache", CPU, batch_size=1)
    (tmp_path / "cache" / "00001.npy.77.unfinished").write_bytes(b"half")  # as after SIGKILL
    assert [shard.number for shard in FeatureCache(dataset, vision, tmp_path / "cache").plan()] == [1, 2]
    table = build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    assert sum(seen) == 4 and len(table.rows) == 4
    assert not list((tmp_path / "cache").glob("*.unfinished"))


def test_every_process_gets_a_share_of_the_plan(tmp_path, dataset, tiny_model):
    cache = FeatureCache(dataset, tiny_model("opt").vision, tmp_path / "cache")
    plan = cache.plan(processes=2)
    assert [(shard.number, len(shard.keys)) for shard in plan] == [(0, 3), (1, 2)]
    cache.compute(plan[1:], CPU)  # in whatever order they end
    with pytest.raises(DataError, match=r"lacks the features of 3 pictures, e.g. .*0.png: all processes must see"):
        cache.table()
    cache.compute(plan[:1], CPU)
    table = cache.table()
    assert len(table.rows) == 4 and table.is_visible()
    (tmp_path / "cache" / "00001.npy").unlink()
    assert not table.is_visible()


def test_new_and_replaced_pictures_are_added(tmp_path, dataset, tiny_model, seen):
    vision = tiny_model("opt").vision
    before = build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    kept = before(str(tmp_path / "1.png"))
    noise(tmp_path / "0.png", 60)
    noise(tmp_path / "4.png", 50)  # mended
    noise(tmp_path / "5.png", 51)
    add_rows(tmp_path, [5])
    dataset = open_dataset(tmp_path)
    expected = vision(dataset[0]["image"][None])[0]
    seen.clear()
    after = build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    assert sum(seen) == 3 and len(after.rows) == 6 and not after.bad
    assert torch.equal(after(str(tmp_path / "1.png")), kept)
    torch.testing.assert_close(after(str(tmp_path / "0.png")), expected, rtol=2e-3, atol=2e-3)


def test_features_of_another_vit_or_preprocessing_are_refused(tmp_path, dataset, tiny_model):
    cache = tmp_path / "cache"
    vision = tiny_model("opt").vision
    build_feature_table(dataset, vision, cache, CPU)
    with pytest.raises(ConfigError, match=rf"{cache} holds features that were made by another ViT .*delete this one"):
        build_feature_table(dataset, tiny_model("opt", seed=1).vision, cache, CPU)
    vision.feature_layer = -2  # as Hugging Face towers have it: other features of the same weights
    with pytest.raises(ConfigError, match=r"another ViT \(.*layer -1; now it is .*layer -2\)"):
        build_feature_table(dataset, vision, cache, CPU)
    del vision.feature_layer
    dataset.vis_processor = BlipImageEvalProcessor(56, mean=(0.5, 0.5, 0.5))
    with pytest.raises(
        ConfigError, match=r"another preprocessing \(Compose.*0\.481.*; now it is .*\(0\.5, 0\.5, 0\.5\)"
    ):
        build_feature_table(dataset, vision, cache, CPU)


def test_a_processor_without_a_repr_of_its_own_is_known_again(tmp_path, dataset, tiny_model):
    """Python's default repr holds an address, which differs in every process."""
    process = dataset.vis_processor

    class Plain:
        def __call__(self, picture):
            return process(picture)

    vision = tiny_model("opt").vision
    dataset.vis_processor = Plain()
    first = build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    other = Plain()
    assert repr(dataset.vis_processor) != repr(other)
    dataset.vis_processor = other
    assert build_feature_table(dataset, vision, tmp_path / "cache", CPU).rows == first.rows


@pytest.mark.parametrize("part", ["array", "record"])
def test_damage_is_refused_and_deleting_mends_it(tmp_path, dataset, tiny_model, seen, part):
    vision = tiny_model("opt").vision
    table = build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    array, record = tmp_path / "cache" / "00000.npy", tmp_path / "cache" / "00000.json"
    if part == "array":
        content = bytearray(array.read_bytes())
        content[-3] ^= 1
        array.write_bytes(content)
    else:
        record.write_text(record.read_text()[:-30])
    with pytest.raises(DataError, match=r"00000.npy is damaged; delete it and 00000.json"):
        build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    array.unlink()
    seen.clear()
    again = build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    assert sum(seen) == 4 and again.rows == table.rows


def test_a_copied_cache_is_checked_once_and_used(tmp_path, dataset, tiny_model, monkeypatch, seen):
    vision = tiny_model("opt").vision
    build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    shutil.copytree(tmp_path / "cache", tmp_path / "copy", copy_function=shutil.copyfile)
    checked = []
    checksum = feature_table.checksum
    monkeypatch.setattr(feature_table, "checksum", lambda path: checked.append(path) or checksum(path))
    seen.clear()
    for _ in range(2):
        build_feature_table(dataset, vision, tmp_path / "copy", CPU)
    assert checked == [tmp_path / "copy" / "00000.npy"] and not seen


def test_augmentation_is_refused(tmp_path, dataset, tiny_model):
    dataset.vis_processor = Blip2ImageTrainProcessor(56)
    with pytest.raises(ConfigError, match="set vis_processor.train to blip_image_eval"):
        build_feature_table(dataset, tiny_model("opt").vision, tmp_path / "cache", CPU)


def test_space_is_said_and_looked_for_beforehand(tmp_path, dataset, tiny_model, monkeypatch, caplog, seen):
    vision = tiny_model("opt").vision
    usage = namedtuple("Usage", "total used free")
    needed = 5 * 2 * vision.num_tokens * vision.num_features
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, needed - 1))
    caplog.set_level(logging.INFO)
    with pytest.raises(DataError, match=r"features of 5 pictures take 0\.0 GiB, but .* has only 0\.0 GiB"):
        build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    assert not seen
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, needed))
    build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    assert f"features of 5 pictures once: {needed / 2**30:.2f} GiB in {tmp_path / 'cache'}" in caplog.text


def test_features_beyond_fp16_are_refused(tmp_path, dataset, tiny_model):
    vision = tiny_model("opt").vision
    with torch.no_grad():
        for parameter in vision.encoder.patch_embed.parameters():
            parameter.mul_(1e7)
    with pytest.raises(ConfigError, match="not finite in fp16"):
        build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    assert not list((tmp_path / "cache").glob("*"))


def test_an_earlier_layout_is_pointed_out_and_left_alone(tmp_path, dataset, tiny_model, caplog):
    old = tmp_path / "cache" / ("0123456789ab" * 2 + ".npy")
    old.parent.mkdir()
    np.save(old, np.zeros(3, np.float16))
    old.with_suffix(".json").write_text("{}")
    table = build_feature_table(dataset, tiny_model("opt").vision, tmp_path / "cache" / "data-train", CPU)
    assert len(table.rows) == 4 and old.exists()
    assert f"{old.parent} holds features in the layout of an earlier version (1 files" in caplog.text

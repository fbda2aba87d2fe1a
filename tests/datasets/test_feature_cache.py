"""The frozen ViT's features on disk: right values, computed once, never the wrong ones."""

import json

import pytest
import torch
from lavis.processors.blip_processors import Blip2ImageTrainProcessor, BlipImageEvalProcessor
from PIL import Image

from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.datasets.feature_cache import build_feature_table
from lavis_evlgen.datasets.image_text import ImageCaptionDataset
from lavis_evlgen.errors import ConfigError, DataError

CPU = torch.device("cpu")


@pytest.fixture
def dataset(tmp_path):
    """Five pictures, the last one cut off, two captions each."""
    rows = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.effect_noise((40 + number, 30), 90).convert("RGB").save(path)
        rows.append({"image": path.name, "caption": [f"picture {number}", f"number {number}"]})
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:200])
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ImageCaptionDataset(BlipImageEvalProcessor(56), str.lower, str(tmp_path), [str(tmp_path / "train.jsonl")])


def test_items_hold_the_features_of_their_pictures(tmp_path, dataset, tiny_model):
    vision = tiny_model("opt").vision
    expected = [vision(dataset[index]["image"][None])[0] for index in range(8)]
    dataset.features = build_feature_table(dataset, vision, tmp_path / "cache", CPU, batch_size=2)
    for index, features in enumerate(expected):
        item = dataset[index]
        assert item.keys() == {"vision_features", "text_input", "image_id"}
        torch.testing.assert_close(item["vision_features"], features, rtol=2e-3, atol=2e-3)  # fp16 on disk
    assert torch.equal(dataset[0]["vision_features"], dataset[1]["vision_features"])
    assert isinstance(dataset[8], BadSample) and "truncated" in dataset[8].reason


def test_computed_once(tmp_path, dataset, tiny_model, monkeypatch):
    vision = tiny_model("opt").vision
    first = build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    monkeypatch.setattr(type(vision), "forward", lambda *_: pytest.fail("computed again"))
    again = build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    assert (again.path, again.rows, again.bad, again.seconds) == (first.path, first.rows, first.bad, first.seconds)


def test_other_weights_preprocessing_or_pictures_get_their_own_table(tmp_path, dataset, tiny_model):
    def build(seed=0):
        return build_feature_table(dataset, tiny_model("opt", seed=seed).vision, tmp_path / "cache", CPU).path

    paths = [build(), build(seed=1)]
    dataset.vis_processor = BlipImageEvalProcessor(56, mean=(0.5, 0.5, 0.5))
    paths.append(build())
    Image.new("RGB", (30, 30), "red").save(tmp_path / "0.png")
    paths.append(build())
    assert len(set(paths)) == 4 and not list((tmp_path / "cache").glob("*.tmp"))


def test_damage_and_augmentation_are_refused(tmp_path, dataset, tiny_model):
    vision = tiny_model("opt").vision
    table = build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    content = bytearray(table.path.read_bytes())
    content[-3] ^= 1
    table.path.write_bytes(content)
    with pytest.raises(DataError, match=f"{table.path.name} is damaged; delete it"):
        build_feature_table(dataset, vision, tmp_path / "cache", CPU)
    dataset.vis_processor = Blip2ImageTrainProcessor(56)
    with pytest.raises(ConfigError, match="set vis_processor.train to blip_image_eval"):
        build_feature_table(dataset, vision, tmp_path / "other", CPU)

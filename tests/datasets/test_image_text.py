import json

import pytest
import torch
from lavis.datasets.data_utils import concat_datasets
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.datasets.caption_builders import CocoCaptionEvalDataset
from lavis_evlgen.datasets.image_text import ImageCaptionDataset, ImageCaptionEvalDataset
from lavis_evlgen.errors import ConfigError, DataError

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def folder(tmp_path):
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 6), colour).save(tmp_path / f"{name}.png")
    rows = [
        {"image": "red.png", "caption": ["Red.", "all red"]},
        {"image": "gone.png", "caption": ["never seen"]},
        {"image": "green.png", "caption": ["green", "all green", "grass"]},
    ]
    (tmp_path / "ann.json").write_text(json.dumps(rows))
    return tmp_path


def build(cls, folder, **options):
    return cls(to_tensor, str.lower, vis_root=str(folder), ann_paths=[str(folder / "ann.json")], **options)


def test_training_has_one_item_per_picture_and_caption(folder):
    dataset = build(ImageCaptionDataset, folder)
    assert len(dataset) == 6
    texts = [item["text_input"] for item in map(dataset.__getitem__, [0, 1, 3, 4, 5])]
    assert texts == ["red.", "all red", "green", "all green", "grass"]
    assert dataset[1]["image_id"] == "red"
    assert dataset[1]["image"][:, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert isinstance(dataset[2], BadSample)
    assert dataset[2].reason == "no such file"
    with pytest.raises(IndexError):
        dataset[6]


def test_a_picture_has_one_key_for_all_its_captions(folder):
    dataset = build(ImageCaptionDataset, folder)
    keys = [dataset.image_key(index) for index in range(6)]
    assert keys[0] == keys[1] and keys[3] == keys[4] == keys[5] and len(set(keys)) == 3
    assert dataset.load_image(4).getpixel((0, 0)) == COLOURS["green"]
    assert isinstance(dataset.load_image(2), BadSample)


def test_random_captions_have_one_item_per_picture_and_follow_the_seed(folder):
    dataset = build(ImageCaptionDataset, folder, captions="random")
    assert len(dataset) == 3
    torch.manual_seed(0)
    drawn = [dataset[2]["text_input"] for _ in range(30)]
    assert set(drawn) == {"green", "all green", "grass"}
    torch.manual_seed(0)
    assert [dataset[2]["text_input"] for _ in range(30)] == drawn
    with pytest.raises(ConfigError, match="'best' is unknown"):
        build(ImageCaptionDataset, folder, captions="best")


def test_evaluation_has_one_item_per_picture_with_all_references(folder):
    dataset = build(ImageCaptionEvalDataset, folder)
    assert len(dataset) == 3
    item = dataset[2]
    assert (item["image_id"], item["instance_id"], item["text_input"]) == ("green", "2", "green")
    assert dataset.ground_truth() == {
        "red": ["Red.", "all red"],
        "gone": ["never seen"],
        "green": ["green", "all green", "grass"],
    }


def test_evaluation_without_references_has_no_ground_truth(folder, caplog):
    (folder / "ann.json").write_text(json.dumps([{"image": "red.png"}, {"image": "blue.png", "caption": "blue"}]))
    dataset = build(ImageCaptionEvalDataset, folder)
    assert dataset[0]["text_input"] == ""
    assert dataset.ground_truth() == {"blue": ["blue"]}
    assert "1 of 2 pictures have no reference caption" in caplog.text


def test_two_files_of_a_split_may_not_share_an_id(folder):
    with pytest.raises(DataError, match="image_id 'red' stands in two"):
        ImageCaptionEvalDataset(vis_root=str(folder), ann_paths=[str(folder / "ann.json")] * 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_through_lavis_concatenation_and_a_loader(folder, workers):
    dataset = concat_datasets({"train": [build(ImageCaptionDataset, folder)]})["train"]
    loader = DataLoader(dataset, batch_size=3, num_workers=workers, collate_fn=dataset.collater)
    first, second = loader
    assert first["image"].shape == (2, 3, 6, 8)
    assert first["text_input"] == ["red.", "all red"]
    assert first["bad_samples"] == [f"{folder / 'gone.png'}: no such file"]
    assert second["image_id"] == ["green"] * 3 and "bad_samples" not in second


@pytest.mark.parametrize("cls", [ImageCaptionDataset, ImageCaptionEvalDataset])
def test_computed_features_take_the_place_of_pictures(folder, cls):
    dataset = build(cls, folder)
    red = dataset.image_key(0)
    dataset.features = lambda key: torch.full((5, 3), 7.0) if key == red else BadSample(key, "damaged")
    last = len(dataset) - 1
    batch = dataset.collater([dataset[0], dataset[last]])
    assert batch["vision_features"].shape == (1, 5, 3) and "image" not in batch
    assert batch["image_id"] == ["red"]
    assert batch["bad_samples"] == [f"{dataset.image_key(last)}: damaged"]


def test_coco_ids_are_the_numbers_in_the_file_names(tmp_path):
    rows = [{"image": "val2014/COCO_val2014_000000391895.jpg", "caption": ["a", "b"]}]
    (tmp_path / "ann.json").write_text(json.dumps(rows))
    dataset = CocoCaptionEvalDataset(vis_root=str(tmp_path), ann_paths=[str(tmp_path / "ann.json")])
    assert dataset.ground_truth() == {"391895": ["a", "b"]}
    (tmp_path / "ann.json").write_text(json.dumps([{"image": "cat.jpg", "caption": "a"}]))
    with pytest.raises(DataError, match=r"'cat\.jpg' is not named as COCO's"):
        CocoCaptionEvalDataset(vis_root=str(tmp_path), ann_paths=[str(tmp_path / "ann.json")])


def test_first_captions_alone(folder):
    dataset = build(ImageCaptionDataset, folder, captions="first")
    assert len(dataset) == 3 and {dataset[2]["text_input"] for _ in range(9)} == {"green"}

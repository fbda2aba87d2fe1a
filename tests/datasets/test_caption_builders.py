import json
import shutil
from types import SimpleNamespace

import pytest
import released_files
from lavis.common.config import Config
from lavis.common.registry import registry
from omegaconf import OmegaConf
from released_files import FLICKR, NOCAPS, captions

from lavis_evlgen.datasets.caption_annotations import read_caption_records
from lavis_evlgen.errors import DataError

NO_CROP = {"name": "blip_image_eval", "image_size": 8, "mean": [0, 0, 0], "std": [1, 1, 1]}
PROCESSORS = {
    "vis_processor": {"train": NO_CROP, "eval": NO_CROP},
    "text_processor": {"train": {"name": "blip_caption"}, "eval": {"name": "blip_caption"}},
}


def build(name: str, images, annotations: dict, **further) -> dict:
    """The data sets of a builder with its default configuration and these files; splits not named are left out."""
    files = {split: None if path is None else {"storage": str(path)} for split, path in annotations.items()}
    info = {"images": {"storage": str(images)}, "annotations": files}
    config = {"datasets": {name: {"build_info": info, **PROCESSORS, **further}}}
    merged = Config.build_dataset_config(OmegaConf.create(config))
    return registry.get_task_class("captioning")().build_datasets(SimpleNamespace(datasets_cfg=merged.datasets))[name]


def colour(item) -> tuple[int, ...]:
    return tuple((item["image"][:, 4, 4] * 255).round().int().tolist())


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("lavis_evlgen.datasets.builders.download_url", refuse)


@pytest.fixture
def coco(tmp_path):
    return released_files.coco(tmp_path)


@pytest.fixture
def nocaps(tmp_path):
    return released_files.nocaps(tmp_path)


@pytest.fixture
def flickr(tmp_path):
    return released_files.flickr30k(tmp_path)


def test_coco_in_karpathys_splits_is_the_same_by_his_file_and_by_lavis(coco):
    by_karpathy = build("coco_caption", coco["images"], dict.fromkeys(("train", "val", "test"), coco["karpathy"]))
    by_lavis = build("coco_caption", coco["images"], {split: coco[split] for split in ("train", "val", "test")})
    for datasets in (by_karpathy, by_lavis):
        # train includes restval
        assert {split: len(dataset) for split, dataset in datasets.items()} == {"train": 10, "val": 2, "test": 1}
        assert [datasets["train"][n]["image_id"] for n in (0, 5)] == ["9", "42"]
        assert datasets["train"][1]["text_input"] == "the whole picture is painted red"
        assert datasets["val"].ground_truth() == {"391895": captions("blue"), "522418": captions("white")}
        assert colour(datasets["test"][0]) == pytest.approx((0, 0, 0), abs=3)
    assert colour(by_karpathy["train"][7]) == pytest.approx((0, 250, 0), abs=6)


def test_cocos_own_file_of_all_validation_pictures(coco):
    (dataset,) = build("coco_caption", coco["images"], {"train": None, "val": coco["official"], "test": None}).values()
    assert list(dataset.ground_truth()) == ["42", "391895", "522418", "184613"]
    assert dataset.ground_truth()["184613"] == captions("black")
    assert dataset.submission == "_submission/captions_val2014_evlgen_results"
    item = dataset[1]
    assert item["image_id"] == "391895" and colour(item) == pytest.approx((0, 0, 250), abs=6)


def test_pictures_may_lie_all_in_one_folder(coco, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in coco["images"].rglob("*.jpg"):
        shutil.copy(file, flat)
    for source in ("karpathy", "official"):
        dataset = build("coco_caption", flat, {"train": None, "val": coco[source], "test": None})["val"]
        assert {tuple(map(round, colour(dataset[n]))) for n in range(2)} and not hasattr(dataset[0], "reason")
        assert dataset.image_path(0).parent == flat
        assert dataset.submission == "_submission/captions_val2014_evlgen_results"


def test_nocaps_has_its_domains_and_all_captions(nocaps):
    datasets = build("nocaps", nocaps["images"], {"val": nocaps["val"], "test": nocaps["test"]})
    val, test = datasets["val"], datasets["test"]
    assert val.ground_truth() == {str(n): 2 * captions(colour) for n, (colour, _) in NOCAPS.items()}
    assert [record.extras["domain"] for record in val.records] == [domain for _, domain in NOCAPS.values()]
    assert val.records[0].extras == {"open_images_id": "0013ea2087020901", "domain": "in-domain"}
    assert [val[n]["image_id"] for n in range(4)] == ["0", "1", "2", "3"]
    assert colour(val[2]) == pytest.approx((0, 0, 250), abs=6)
    assert test.ground_truth() == {} and test[0]["image_id"] == "0" and test[0]["text_input"] == ""
    assert colour(test[0]) == pytest.approx((0, 0, 0), abs=3)


@pytest.mark.parametrize("layout", ["", "val", "validation", "val_imgs"])
def test_nocaps_pictures_are_found_wherever_people_unpack_them(tmp_path, layout):
    files = released_files.nocaps(tmp_path, layout)
    val = build("nocaps", files["images"], {"val": files["val"], "test": None})["val"]
    assert val.image_path(0) == files["images"] / layout / "0013ea2087020901.jpg"
    assert colour(val[0]) == pytest.approx((250, 0, 0), abs=6)


def test_lavis_list_of_nocaps_does_where_it_lies_in_the_place_of_the_official_file(nocaps):
    folder = nocaps["lavis"].parent
    val = build("nocaps", nocaps["images"], {"val": folder / nocaps["val"].name, "test": None})["val"]
    assert [record.image_id for record in val.records] == ["0", "1", "2", "3"] and val.ground_truth() == {}


@pytest.mark.parametrize("layout", ["", "flickr30k-images", "flickr30k_images"])
def test_flickr30k_is_the_same_by_every_official_file(tmp_path, layout):
    files = released_files.flickr30k(tmp_path, layout)
    by_karpathy = build(
        "flickr30k_caption", files["images"], dict.fromkeys(("train", "val", "test"), files["karpathy"])
    )
    by_lavis = build("flickr30k_caption", files["images"], {split: files[split] for split in ("train", "val", "test")})
    for datasets in (by_karpathy, by_lavis):
        assert [len(datasets[split]) for split in ("train", "val", "test")] == [10, 1, 2]
        assert datasets["test"].ground_truth() == {"1007129816": captions("white"), "1009434119": captions("black")}
        assert datasets["train"][9]["image_id"] == "10002456"
        assert colour(datasets["train"][9]) == pytest.approx((0, 250, 0), abs=6)
    everything = build("flickr30k_caption", files["images"], {"train": None, "val": None, "test": files["token"]})
    assert everything["test"].ground_truth() == {str(n): captions(colour) for n, (_, colour) in FLICKR.items()}


def test_lavis_default_paths_find_karpathys_file_beside_them(flickr, monkeypatch, no_network):
    monkeypatch.setitem(registry.mapping["paths"], "cache_root", str(flickr["images"].parent / "cache"))
    place = flickr["images"].parent / "cache" / "flickr30k"
    (place / "annotations").mkdir(parents=True)
    shutil.copy(flickr["karpathy"], place / "annotations")
    shutil.copytree(flickr["images"], place / "images")
    merged = Config.build_dataset_config(OmegaConf.create({"datasets": {"flickr30k_caption": PROCESSORS}}))
    datasets = registry.get_builder_class("flickr30k_caption")(merged.datasets.flickr30k_caption).build_datasets()
    assert {split: len(dataset) for split, dataset in datasets.items()} == {"train": 10, "val": 1, "test": 2}


def test_a_split_without_files_is_an_error_when_it_is_used(nocaps, no_network, tmp_path):
    datasets = build("nocaps", nocaps["images"], {"val": nocaps["val"], "test": tmp_path / "gone" / "test.json"})
    assert len(datasets["val"]) == 4
    with pytest.raises(DataError) as error:
        len(datasets["test"])
    for part in (
        "datasets.nocaps.build_info.annotations.test.storage",
        str(tmp_path / "gone" / "test.json"),
        "official file nocaps_test_image_info.json from nocaps.org",
        "no network",
    ):
        assert part in str(error.value)
    with pytest.raises(DataError, match=r"annotations\.val\.storage: .*nocaps_val_4500_captions\.json"):
        build("nocaps", nocaps["images"], {"val": tmp_path / "gone.json", "test": tmp_path / "gone" / "test.json"})


def test_flickr30ks_error_names_both_official_files(flickr, no_network, tmp_path):
    gone = dict.fromkeys(("train", "val", "test"), tmp_path / "gone" / "test.json")
    with pytest.raises(
        DataError, match=r"flickr30k_train\.json \(or dataset_flickr30k\.json of the original release\)"
    ):
        build("flickr30k_caption", flickr["images"], gone)


def test_a_wrong_folder_of_pictures_is_named(nocaps, tmp_path):
    with pytest.raises(DataError, match=r"datasets\.nocaps\.build_info\.images\.storage: the folder .*nowhere"):
        build("nocaps", tmp_path / "nowhere", {"val": nocaps["val"], "test": None})
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"none of the first 4 pictures of .*nocaps_val_4500_captions\.json exists below"
    ):
        build("nocaps", tmp_path / "empty", {"val": nocaps["val"], "test": None})


FAILURES = {
    "split": ({"images": [{"filename": "a.jpg", "split": "train", "sentences": []}]}, r"split 'val'; .* train \(1\)"),
    "keys": ({"pictures": []}, r"dict with the keys \['pictures'\]"),
    "id": ({"images": [{"file_name": "a.jpg"}]}, "'id' is missing or wrong"),
    "other": (
        {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 2, "caption": "x"}]},
        "2 is missing or wrong",
    ),
    "sentences": (
        {"images": [{"filename": "a.jpg", "split": "val", "sentences": [{"tokens": []}]}]},
        "'raw' is missing",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_is_wrong_with_an_annotation_file_is_said(tmp_path, name):
    content, message = FAILURES[name]
    (tmp_path / "f.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as error:
        read_caption_records(tmp_path / "f.json", split="val")
    assert str(tmp_path / "f.json") in str(error.value)


def test_a_damaged_token_file_is_named_with_its_line(tmp_path):
    (tmp_path / "r.token").write_text("1.jpg#0\ta cat\n1.jpg a dog\n")
    with pytest.raises(DataError, match=r"r\.token, line 2: not of the form"):
        read_caption_records(tmp_path / "r.token")
    with pytest.raises(DataError, match="gone.token cannot be read"):
        read_caption_records(tmp_path / "gone.token")

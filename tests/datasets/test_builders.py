import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from lavis.common.config import Config
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

import lavis_evlgen.datasets.builders
from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.errors import ConfigError, DataError


def build(name: str, config: dict) -> dict:
    """The data sets of a builder, its configuration merged and its task run as LAVIS does."""
    merged = Config.build_dataset_config(OmegaConf.create({"datasets": {name: config}}))
    task = registry.get_task_class("captioning")()
    return task.build_datasets(SimpleNamespace(datasets_cfg=merged.datasets))[name]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A working directory with pictures and annotation files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "pics" / f"{name}.jpg")
    rows = [{"image": "a.jpg", "caption": ["A Cat.", "cat"]}, {"image": "b.jpg", "caption": "a dog"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "val.csv").write_text("image,caption\nb.jpg,A dog!\n")
    return tmp_path


FILES = {"images": "pics", "annotations": {"train": "train.jsonl", "val": "val.csv", "unseen": "val.csv"}}


def test_image_caption_needs_only_paths(data):
    datasets = build("image_caption", FILES)
    assert set(datasets) == {"train", "val", "unseen"}
    assert [len(datasets[split]) for split in datasets] == [3, 1, 1]
    item = datasets["train"][0]
    assert item["image"].shape == (3, 224, 224)
    assert item["text_input"] == "a cat"
    assert datasets["val"].ground_truth() == {"b": ["A dog!"]}
    assert datasets["unseen"][0]["text_input"] == "a dog"


def test_processors_paths_and_options_of_the_user_win(data, monkeypatch):
    monkeypatch.setenv("HOME", str(data))
    config = {
        "images": "~/pics",
        "annotations": {"train": ["~/train.jsonl", str(data / "val.csv")], "val": "val.csv", "test": None},
        "captions": "random",
        "vis_processor": {"eval": {"name": "blip2_image_eval", "image_size": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}},
        "text_processor": {"eval": None},
    }
    datasets = build("image_caption", config)
    assert set(datasets) == {"train", "val"} and len(datasets["train"]) == 3
    assert datasets["val"][0]["image"].shape == (3, 32, 32)
    assert datasets["val"][0]["image"][0].mean().item() == pytest.approx(200 / 255, abs=0.01)
    assert datasets["val"][0]["text_input"] == "a dog"


def test_a_missing_picture_among_good_ones_is_a_bad_sample(data):
    (data / "pics" / "a.jpg").unlink()
    datasets = build("image_caption", FILES)
    assert isinstance(datasets["train"][0], BadSample)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": None}, ConfigError, "datasets.image_caption.images is not set"),
        (
            {"images": "nowhere"},
            DataError,
            "datasets.image_caption.images: the folder nowhere does not exist .*nowhere",
        ),
        ({"images": "."}, DataError, "images: none of the first 2 pictures of train.jsonl exists below it"),
        ({"annotations": {}}, ConfigError, "datasets.image_caption.annotations names no file"),
        (
            {"annotations": {"val": "v.json"}},
            DataError,
            "datasets.image_caption.annotations.val: v.json does not exist",
        ),
        ({"captions": "some"}, ConfigError, "captions: 'some' is unknown"),
        ({"vis_processor": {"eval": None}}, ConfigError, "datasets.image_caption.vis_processor.eval is not set"),
        ({"vis_processor": None}, ConfigError, "datasets.image_caption.vis_processor.train is not set"),
    ],
)
def test_image_caption_says_which_key_is_wrong(data, change, error, message):
    config = {**FILES, **change}
    if change.get("annotations") == {}:
        config.pop("annotations")
    with pytest.raises(error, match=message):
        build("image_caption", config)


def write_tar(path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "JPEG")
    with tarfile.open(path, "w") as tar:
        for name, content in {"1.jpg": buffer.getvalue(), "1.json": b'{"caption": "A Cat."}'}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("image_caption_tar", {"shards": "{00000..00001}.tar"}),
        ("image_caption_tar", {"shards": ["*.tar"]}),
        ("laion115M", {"build_info": {"storage": "{00000..00001}.tar"}}),
        ("laion115M", {"shards": "00000.tar"}),
        ("ccs14M", {"build_info": {"storage": "00001.tar"}}),
    ],
)
def test_shards_are_streamed(data, name, config):
    write_tar(data / "00000.tar")
    write_tar(data / "00001.tar")
    item = next(iter(build(name, config)["train"]))
    assert item["image"].shape == (3, 224, 224)
    assert item["text_input"] == "a cat"
    assert item["image_id"] in ("00000/1", "00001/1")


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("image_caption_tar", {}, "no shards given: set datasets.image_caption_tar.shards"),
        ("laion115M", {}, "no shards given: set datasets.laion115M.build_info.storage"),
        ("ccs14M", {}, "no shards given: set datasets.ccs14M.build_info.storage"),
        ("image_caption_tar", {"shards": "x.tar"}, "none of the 1 shards of datasets.image_caption_tar.shards exists"),
    ],
)
def test_shards_that_are_not_there_are_named_with_their_key(data, name, config, message):
    with pytest.raises(DataError, match=message):
        build(name, config)


PROCESSORS = {
    "vis_processor": {"train": {"name": "blip_image_train", "image_size": 32}, "eval": {"name": "blip_image_eval"}},
    "text_processor": {"train": {"name": "blip_caption"}},
}


@pytest.fixture
def coco(data, monkeypatch):
    """LAVIS's cache folder with a few COCO annotations and pictures, for LAVIS's own configuration."""
    monkeypatch.setitem(registry.mapping["paths"], "cache_root", str(data / "cache"))
    annotations, pictures = data / "cache/coco/annotations", data / "cache/coco/images/val2014"
    annotations.mkdir(parents=True)
    pictures.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(pictures / "COCO_val2014_000000391895.jpg")
    image = "val2014/COCO_val2014_000000391895.jpg"
    train = [{"caption": text, "image": image, "image_id": "coco_391895"} for text in ("A man.", "a rider")]
    (annotations / "coco_karpathy_train.json").write_text(json.dumps(train))
    for split in ("val", "test"):
        content = [{"image": image, "caption": ["A man.", "a rider"]}]
        (annotations / f"coco_karpathy_{split}.json").write_text(json.dumps(content))
    return annotations


def test_coco_caption_over_lavis_own_configuration(coco):
    datasets = build("coco_caption", PROCESSORS)
    assert {split: len(dataset) for split, dataset in datasets.items()} == {"train": 2, "val": 1, "test": 1}
    assert datasets["train"][1]["text_input"] == "a rider"
    assert datasets["train"][1]["image_id"] == datasets["val"][0]["image_id"] == "391895"
    assert datasets["val"].ground_truth() == {"391895": ["A man.", "a rider"]}


def test_coco_caption_without_its_file_or_a_network_says_what_to_do(coco, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("lavis_evlgen.datasets.builders.download_url", no_network)
    (coco / "coco_karpathy_test.json").unlink()
    key = "datasets.coco_caption.build_info.annotations.test"
    with pytest.raises(DataError) as error:  # when the split is used
        len(build("coco_caption", PROCESSORS)["test"])
    for part in (
        f"{key}.storage",
        str(coco / "coco_karpathy_test.json"),
        "official file coco_karpathy_test.json",
        "no network",
    ):
        assert part in str(error.value)
    without = {**PROCESSORS, "build_info": {"annotations": {"test": None}}}
    assert set(build("coco_caption", without)) == {"train", "val"}


def test_coco_caption_takes_local_paths(coco, data, monkeypatch):
    (data / "my.json").write_text((coco / "coco_karpathy_test.json").read_text())
    (coco / "coco_karpathy_test.json").unlink()
    info = {"annotations": {"test": {"storage": "my.json"}}, "images": {"storage": str(data / "cache/coco/images")}}
    assert len(build("coco_caption", {**PROCESSORS, "build_info": info})["test"]) == 1
    info["images"]["storage"] = "elsewhere"
    with pytest.raises(DataError, match=r"datasets\.coco_caption\.build_info\.images\.storage: the folder .*elsewhere"):
        build("coco_caption", {**PROCESSORS, "build_info": info})


def test_registering_twice_is_harmless():
    import importlib

    importlib.reload(lavis_evlgen.datasets.builders)
    assert registry.get_builder_class("image_caption").name == "image_caption"

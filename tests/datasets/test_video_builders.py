import csv
import json
from types import SimpleNamespace

import pytest
import torch
import video_files as video
from lavis.common.config import Config
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

import lavis_evlgen.datasets.builders
from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.datasets.frame_sampling import sample_frames
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.processors.video import VideoEvalProcessor, VideoTrainProcessor
from lavis_evlgen.runners.evaluation import EvalLoader
from lavis_evlgen.runners.loaders import TrainLoader
from lavis_evlgen.runners.settings import RunSettings

BUILDERS = ("video_caption", "static_video_caption", "msrvtt_caption", "msvd_caption", "vatex_caption", "webvid_2m")
NAMED = BUILDERS[2:]
PLAIN = {"mean": [0, 0, 0], "std": [1, 1, 1]}
# what official EVLGen files have under `datasets`
OFFICIAL = """
msrvtt_caption:
  vis_processor:
    train: {name: alpro_video_train, n_frms: 4, image_size: 32}
    eval: {name: alpro_video_eval, n_frms: 4, image_size: 32}
  text_processor:
    train: {name: blip_caption}
    eval: {name: blip_caption}
"""


def build(name: str, config) -> dict:
    """The data sets of a builder, its configuration checked and merged and its task run as LAVIS does."""
    config = OmegaConf.create({"datasets": {name: config}})
    check_config(OmegaConf.merge(config, {"model": MODEL, "run": {"task": "captioning"}}))
    merged = Config.build_dataset_config(config)
    task = registry.get_task_class("captioning")()
    return task.build_datasets(SimpleNamespace(datasets_cfg=merged.datasets))[name]


MODEL = {"arch": "evlgen_opt", "model_type": "pretrain_opt2.7b"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, length in (("a.mp4", 30), ("b.mp4", 2)):
        video.write_clip(folder / name, length)
    return folder


@pytest.fixture
def data(tmp_path, clips, monkeypatch):
    """A working directory with clips and annotation files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").symlink_to(clips)
    rows = [{"video": "a.mp4", "caption": ["A Cat.", "cat"]}, {"video": "b.mp4", "caption": "a dog", "kind": "dog"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "val.csv").write_text("video,caption\nb.mp4,A dog!\n")
    return tmp_path


FILES = {"videos": "clips", "annotations": {"train": "train.jsonl", "val": "val.csv", "unseen": "val.csv"}}


def test_video_caption_needs_only_paths(data):
    datasets = build("video_caption", FILES)
    assert {split: len(dataset) for split, dataset in datasets.items()} == {"train": 3, "val": 1, "unseen": 1}
    item = datasets["train"][0]
    assert item["video"].shape == (3, 4, 224, 224)
    assert (item["text_input"], item["image_id"]) == ("a cat", "a")
    assert isinstance(datasets["train"].vis_processor, VideoTrainProcessor)
    assert isinstance(datasets["val"].vis_processor, VideoEvalProcessor)
    assert datasets["val"].ground_truth() == {"b": ["A dog!"]}
    assert datasets["train"].ground_truth() == {"a": ["A Cat.", "cat"], "b": ["a dog"]}
    assert datasets["train"].records[1].extras == {"kind": "dog"}


@pytest.mark.parametrize("key", ["num_frames", "n_frms"])
def test_processors_and_options_of_the_user_win(data, key):
    config = {
        **FILES,
        "captions": "first",
        "vis_processor": {"eval": {"name": "evlgen_video_eval", "image_size": 32, key: 3, **PLAIN}},
    }
    datasets = build("video_caption", config)
    assert len(datasets["train"]) == 2
    clip = datasets["val"][0]["video"]
    assert video.numbers((255 * clip.permute(1, 2, 3, 0)).numpy()) == sample_frames(2, 3)


@pytest.mark.parametrize("name", ["train", "eval"])
def test_lavis_processors_take_the_place_of_ours(data, name):
    config = {**FILES, "vis_processor": {name: {"name": f"alpro_video_{name}", "image_size": 32, "n_frms": 8}}}
    datasets = build("video_caption", config)
    assert datasets["train" if name == "train" else "val"][0]["video"].shape == (3, 8, 32, 32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"videos": None}, ConfigError, "datasets.video_caption.videos is not set: it is the folder that clip paths"),
        (
            {"videos": "nowhere"},
            DataError,
            "datasets.video_caption.videos: the folder nowhere does not exist .*nowhere",
        ),
        ({"videos": "."}, DataError, r"video_caption.videos: none of the first 2 clips of train.jsonl .*a\.mp4"),
        ({"annotations": {"val": "v.json"}}, DataError, "video_caption.annotations.val: v.json does not exist"),
        (
            {"vis_processor": {"eval": None}},
            ConfigError,
            "vis_processor.eval is not set; name one, e.g. evlgen_video_eval",
        ),
        (
            {"vis_processor": {"eval": {"name": "blip_image_eval", "image_size": 32}}},
            ConfigError,
            "vis_processor.eval: BlipImageEvalProcessor is not a processor of clips; use evlgen_video_train and",
        ),
        (
            {"vis_processor": {"train": {"name": "alpro_video_train", "image_size": 32}}},
            ConfigError,
            "vis_processor.train.n_frms is not set: it is how many frames LAVIS's processor takes",
        ),
        ({"video": "clips"}, ConfigError, "datasets.video_caption.video is unknown; did you mean 'videos'"),
        (
            {"vis_processor": {"eval": {"name": "evlgen_video_eval", "nframes": 4}}},
            ConfigError,
            "datasets.video_caption.vis_processor.eval.nframes is unknown; did you mean 'num_frames'",
        ),
        (
            {"vis_processor": {"train": {"name": "evlgen_video_train", "num_frames": 4, "n_frms": 8}}},
            ConfigError,
            "num_frames: 4 and n_frms: 8 mean the same",
        ),
    ],
)
def test_video_caption_says_which_key_is_wrong(data, change, error, message):
    with pytest.raises(error, match=message):
        build("video_caption", {**FILES, **change})


def test_pictures_become_clips_that_stand_still(tmp_path):
    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "a.jpg")
    (tmp_path / "train.json").write_text(json.dumps([{"image": "a.jpg", "caption": "red"}]))
    files = {
        "images": str(tmp_path),
        "annotations": {split: str(tmp_path / "train.json") for split in ("train", "val")},
    }
    datasets = build("static_video_caption", {**files, "num_frames": 6})
    for split in ("train", "val"):
        item = datasets[split][0]
        assert item["video"].shape == (3, 6, 224, 224) and item["image_id"] == "a"
        assert torch.equal(item["video"][:, 0], item["video"][:, 5])
    with pytest.raises(ConfigError, match="static_video_caption.num_frames must be a whole number from 1 on, not 0"):
        build("static_video_caption", {**files, "num_frames": 0})
    processor = {"eval": {"name": "evlgen_video_eval"}}
    with pytest.raises(ConfigError, match="vis_processor.eval: VideoEvalProcessor reads clips, but this data set has"):
        build("static_video_caption", {**files, "vis_processor": processor})


@pytest.fixture
def cache(data, monkeypatch):
    """LAVIS's cache folder; nothing can be fetched."""

    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(lavis_evlgen.datasets.builders, "download_url", no_network)
    monkeypatch.setitem(registry.mapping["paths"], "cache_root", str(data / "cache"))
    return data / "cache"


def released(cache, name: str, clip) -> None:
    """LAVIS's release of a data set with one clip in the cache, under the names of LAVIS's configuration."""
    (cache / name / "annotations").mkdir(parents=True)
    (cache / name / "videos").mkdir()
    (cache / name / "videos" / "video7010.mp4").symlink_to(clip)
    for split in ("train", "val", "test"):
        rows = [{"video": "video7010.mp4", "caption": text, "image_id": "video7010"} for text in ("A car.", "one car")]
        (cache / name / "annotations" / f"cap_{split}.json").write_text(json.dumps(rows))


@pytest.mark.parametrize("name", ["msrvtt", "msvd", "vatex"])
def test_lavis_releases_are_found_in_its_cache(cache, clips, name):
    released(cache, name, clips / "a.mp4")
    datasets = build(f"{name}_caption", {})
    assert {split: len(dataset) for split, dataset in datasets.items()} == {"train": 2, "val": 1, "test": 1}
    assert (datasets["train"][1]["text_input"], datasets["train"][1]["image_id"]) == ("one car", "video7010")
    assert datasets["test"][0]["video"].shape == (3, 4, 224, 224)
    assert datasets["test"].ground_truth() == {"video7010": ["A car.", "one car"]}


def test_official_files_build_as_they_are(cache, clips):
    released(cache, "msrvtt", clips / "a.mp4")
    datasets = build("msrvtt_caption", OmegaConf.create(OFFICIAL).msrvtt_caption)
    for split in ("train", "val", "test"):
        assert type(datasets[split].vis_processor).__name__.startswith("AlproVideo")
        assert datasets[split][0]["video"].shape == (3, 4, 32, 32)


def test_msrvtts_own_release_by_split(cache, data, clips):
    (data / "msrvtt/videos").mkdir(parents=True)
    for name, target in (("video0", "a"), ("video1", "b")):
        (data / f"msrvtt/videos/{name}.mp4").symlink_to(clips / f"{target}.mp4")
    content = {
        "videos": [{"video_id": "video0", "split": "train"}, {"video_id": "video1", "split": "validate"}],
        "sentences": [{"video_id": f"video{n}", "caption": f"clip {n}"} for n in (0, 1)],
    }
    (data / "train_val_videodatainfo.json").write_text(json.dumps(content))
    both = {"storage": "train_val_videodatainfo.json"}
    datasets = build("msrvtt_caption", {"build_info": {"annotations": {"train": both, "val": both, "test": None}}})
    assert set(datasets) == {"train", "val"}
    assert [record.image_id for record in datasets["train"].records] == ["video0"]
    assert datasets["val"].ground_truth() == {"video1": ["clip 1"]}


def test_a_releases_own_file_beside_lavis_names_does_as_well(cache, clips):
    released(cache, "msrvtt", clips / "a.mp4")
    annotations = cache / "msrvtt/annotations"
    for split in ("train", "val", "test"):
        (annotations / f"cap_{split}.json").unlink()
    content = {
        "videos": [{"video_id": "video7010", "split": "validate"}],
        "sentences": [{"video_id": "video7010", "caption": "from the release"}],
    }
    (annotations / "train_val_videodatainfo.json").write_text(json.dumps(content))
    datasets = build("msrvtt_caption", {"build_info": {"annotations": {"train": None}}})
    assert datasets["val"].ground_truth() == {"video7010": ["from the release"]}
    with pytest.raises(DataError, match=r"annotations.test.storage: .*cap_test.json \(or test_videodatainfo.json of"):
        len(datasets["test"])


def test_vatexs_and_webvids_own_releases(cache, data, clips):
    for path in ("vatex/videos/x_000001_000011.mp4", "webvid_2m/videos/000001_000050/1066674784.mp4"):
        (data / path).parent.mkdir(parents=True)
        (data / path).symlink_to(clips / "a.mp4")
    (data / "vatex.json").write_text(json.dumps([{"videoID": "x_000001_000011", "enCap": ["a", "b"], "chCap": []}]))
    annotations = {"train": {"storage": "vatex.json"}, "val": None, "test": None}
    datasets = build("vatex_caption", {"build_info": {"annotations": annotations}})
    assert len(datasets["train"]) == 2 and datasets["train"][1]["text_input"] == "b"
    (data / "webvid_2m/annotations").mkdir()
    with open(data / "webvid_2m/annotations/results_2M_train.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["videoid", "contentUrl", "duration", "page_dir", "name"])
        rows.writerow(["1066674784", "somewhere", "PT00H00M10S", "000001_000050", "Beach at dusk"])
    datasets = build("webvid_2m", {})
    assert set(datasets) == {"train"}
    item = datasets["train"][0]
    assert (item["text_input"], item["image_id"]) == ("beach at dusk", "1066674784")
    assert item["video"].shape == (3, 4, 224, 224)


OFFICIAL_NAMES = {
    "msrvtt_caption": ("msrvtt/annotations/cap_train.json", "cap_train.json (or train_val_videodatainfo.json of"),
    "msvd_caption": ("msvd/annotations/cap_train.json", "official file cap_train.json there"),
    "vatex_caption": ("vatex/annotations/cap_train.json", "cap_train.json (or vatex_training_v1.0.json of"),
    "webvid_2m": ("webvid_2m/annotations/results_2M_train.csv", "official file results_2M_train.csv there"),
}


@pytest.mark.parametrize("name", NAMED)
def test_absent_annotations_are_named_with_place_and_official_name(cache, name):
    path, official = OFFICIAL_NAMES[name]
    with pytest.raises(DataError) as error:
        build(name, {})
    key = f"datasets.{name}.build_info.annotations.train"
    for part in (f"{key}.storage: {cache / path} does not exist", official, f"set {key} to null to leave"):
        assert part in str(error.value)


def test_absent_clips_are_named_with_the_key_of_their_folder(cache, clips):
    released(cache, "msrvtt", clips / "a.mp4")
    key = "datasets.msrvtt_caption.build_info.videos.storage"
    with pytest.raises(DataError, match=f"{key}: the folder .*nowhere does not exist"):
        build("msrvtt_caption", {"build_info": {"videos": {"storage": "nowhere"}}})
    (cache / "msrvtt/videos/video7010.mp4").unlink()
    with pytest.raises(DataError, match=f"{key}: none of the first 1 clips of .*cap_train.json exists below it"):
        build("msrvtt_caption", {})


def test_what_is_there_is_not_fetched_and_what_is_not_is(cache, clips, monkeypatch):
    released(cache, "msrvtt", clips / "a.mp4")
    test = cache / "msrvtt/annotations/cap_test.json"
    content = test.read_text()
    test.unlink()
    fetched = []

    def fetch(url, folder, name):
        fetched.append((url.rsplit("/", 2)[1:], name))
        test.write_text(content)

    monkeypatch.setattr(lavis_evlgen.datasets.builders, "download_url", fetch)
    assert len(build("msrvtt_caption", {})["test"]) == 1
    assert fetched == [(["msrvtt", "cap_test.json"], "cap_test.json")]


@pytest.mark.parametrize("name", BUILDERS)
def test_default_files_have_the_builders_own_key(name):
    cls = registry.get_builder_class(name)
    assert cls.name == name
    assert list(OmegaConf.load(cls.default_config_path()).datasets) == [name]


def test_clips_and_still_pictures_train_together_and_bad_clips_stop_the_run(data):
    Image.new("RGB", (40, 30), (200, 10, 10)).save(data / "p.jpg")
    (data / "p.json").write_text(json.dumps([{"image": "p.jpg", "caption": "red"}]))
    (data / "clips_and_bad.json").write_text(
        json.dumps([{"video": name, "caption": name} for name in ("a.mp4", *(f"gone{n}.mp4" for n in range(7)))])
    )
    size = {"image_size": 32}
    clips = build(
        "video_caption",
        {
            "videos": "clips",
            "annotations": {"train": "clips_and_bad.json", "val": "clips_and_bad.json"},
            "vis_processor": {
                "train": {"name": "evlgen_video_train", **size},
                "eval": {"name": "evlgen_video_eval", **size},
            },
        },
    )
    pictures = build(
        "static_video_caption",
        {
            "images": ".",
            "annotations": {"train": "p.json"},
            "vis_processor": {"train": {"name": "blip_image_eval", **size}},
        },
    )
    loader = TrainLoader(
        {"video_caption": [clips["train"]], "static_video_caption": [pictures["train"]]},
        RunSettings(batch_size_train=3, train_dataset_ratios={"video_caption": 1, "static_video_caption": 1}),
    )
    batches = [next(loader) for _ in range(20)]
    sizes = {tuple(batch["video"].shape[1:]) for batch in batches if "video" in batch}
    assert sizes == {(3, 4, 32, 32)}
    assert any(set(batch) == {"bad_samples"} for batch in batches), "a batch of bad clips alone"
    assert any("bad_samples" in batch and len(batch["video"]) == 1 for batch in batches if "video" in batch)

    evaluated = EvalLoader(clips["val"], RunSettings(batch_size_eval=4, max_bad_share=1.0))
    assert [batch["image_id"] for batch in evaluated] == [["a"]]
    assert (evaluated.tally.good, evaluated.tally.bad) == (1, 7)
    strict = EvalLoader(clips["val"], RunSettings(batch_size_eval=4, max_bad_share=0.5))
    with pytest.raises(DataError, match=r"7 of 8 samples could not be read, .*clips/gone0\.mp4: no such file"):
        list(strict)


def test_a_missing_clip_among_good_ones_is_a_bad_sample(data):
    (data / "val.csv").write_text("video,caption\na.mp4,x\ngone.mp4,y\n")
    dataset = build("video_caption", FILES)["val"]
    assert not isinstance(dataset[0], BadSample) and isinstance(dataset[1], BadSample)

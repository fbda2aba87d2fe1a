import json

import pytest
import torch
import video_files as video
from lavis.common.registry import registry
from lavis.datasets.data_utils import concat_datasets
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from lavis_evlgen.datasets.bad_samples import BadSample, collate
from lavis_evlgen.datasets.frame_sampling import sample_frames, spread
from lavis_evlgen.datasets.video_text import (
    StaticVideoCaptionDataset,
    StaticVideoCaptionEvalDataset,
    VideoCaptionDataset,
    VideoCaptionEvalDataset,
)
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.runners.bad_samples import BadSampleTally
from lavis_evlgen.runners.trainable import batch_size

LENGTHS = {"long.mp4": 30, "short.mp4": 3, "one.mp4": 1, "two.mp4": 2}
ROWS = [
    {"video": "long.mp4", "caption": ["Long.", "a long one"]},
    {"video": "gone.mp4", "caption": "never seen"},
    {"video": "text.mp4", "caption": "no video"},
    {"video": "short.mp4", "caption": ["short"]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, length in LENGTHS.items():
        video.write_clip(folder / name, length)
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.mp4").touch()
    (folder / "ann.json").write_text(json.dumps(ROWS))
    return folder


def processor(name: str, **config):
    return registry.get_processor_class(name).from_config(OmegaConf.create(config))


EVAL = {"image_size": 32, "num_frames": 4, "mean": [0, 0, 0], "std": [1, 1, 1]}


def build(cls, folder, vis_processor=None, **options):
    vis_processor = vis_processor or processor("evlgen_video_eval", **EVAL)
    return cls(vis_processor, str.lower, vis_root=str(folder), ann_paths=[str(folder / "ann.json")], **options)


def shown(clip: torch.Tensor) -> list[int]:
    return video.numbers((255 * clip.permute(1, 2, 3, 0)).round().numpy())


def test_training_has_one_item_per_clip_and_caption(folder):
    dataset = build(VideoCaptionDataset, folder)
    assert len(dataset) == 5
    assert [dataset[index]["text_input"] for index in (0, 1, 4)] == ["long.", "a long one", "short"]
    assert dataset[1]["image_id"] == "long"
    assert shown(dataset[1]["video"]) == sample_frames(30, 4)
    assert shown(dataset[4]["video"]) == [0, 1, 1, 2]
    assert dataset.ground_truth()["long"] == ["Long.", "a long one"]


def test_evaluation_has_one_item_per_clip_with_all_references(folder):
    dataset = build(VideoCaptionEvalDataset, folder)
    assert len(dataset) == 4
    item = dataset[3]
    assert (item["image_id"], item["instance_id"], item["text_input"]) == ("short", "3", "short")
    assert item["video"].shape == (3, 4, 32, 32)
    assert dataset.ground_truth() == {
        "long": ["Long.", "a long one"],
        "gone": ["never seen"],
        "text": ["no video"],
        "short": ["short"],
    }


def test_missing_references_are_said_of_clips(folder, tmp_path, caplog):
    (tmp_path / "ann.json").write_text(json.dumps([{"video": "a.mp4"}, {"video": "b.mp4", "caption": "b"}]))
    build(VideoCaptionEvalDataset, tmp_path)
    assert "1 of 2 clips have no reference caption" in caplog.text


@pytest.mark.parametrize("name", ["evlgen_video_eval", "evlgen_video_train", "alpro_video_eval", "alpro_video_train"])
def test_unreadable_clips_are_bad_samples_whatever_the_processor(folder, tmp_path, name):
    whole = (folder / "long.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    video.write_sound(tmp_path / "sound.mp4")
    names = ["cut", "text", "empty", "folder", "sound", "gone"]
    rows = [{"video": f"{stem}.mp4", "caption": stem} for stem in names]
    (tmp_path / "ann.json").write_text(json.dumps(rows))
    dataset = build(VideoCaptionDataset, tmp_path, processor(name, image_size=32, n_frms=4))
    for index, stem in enumerate(names):
        bad = dataset[index]
        assert isinstance(bad, BadSample)
        assert bad.path == str(tmp_path / f"{stem}.mp4") and "\n" not in bad.reason and len(bad.reason) < 250
    reasons = [dataset[index].reason for index in (2, 3, 5)]
    assert reasons == ["the file is empty", "not a file", "no such file"]


@pytest.mark.parametrize("count", [2, 4, 5, 7, 8])
@pytest.mark.parametrize("name", ["alpro_video_eval", "alpro_video_train"])
def test_lavis_processors_give_exactly_the_frames_that_were_asked_for(folder, tmp_path, name, count):
    rows = [{"video": name, "caption": "x"} for name in LENGTHS]
    (tmp_path / "ann.json").write_text(json.dumps(rows))
    dataset = VideoCaptionDataset(
        processor(name, image_size=32, n_frms=count), str, str(folder), [str(tmp_path / "ann.json")]
    )
    for index, length in enumerate(LENGTHS.values()):
        item = dataset[index]
        if isinstance(item, BadSample):  # LAVIS's head-tail sampling takes no frame of a clip of one
            assert (name, length) == ("alpro_video_train", 1)
        else:
            assert item["video"].shape == (3, count, 32, 32)


def test_frames_that_lavis_does_not_give_are_repeated_evenly(folder):
    dataset = build(VideoCaptionDataset, folder, processor("alpro_video_eval", image_size=32, n_frms=8, **NEUTRAL))
    assert shown(dataset[4]["video"]) == spread(3, 8) == [0, 0, 0, 1, 1, 1, 2, 2]


NEUTRAL = {"mean": [0, 0, 0], "std": [1, 1, 1]}


def test_mistakes_in_the_configuration_are_not_taken_for_bad_clips(folder):
    def refuse(path):
        raise ConfigError("decoder: av needs a package")

    with pytest.raises(ConfigError, match="decoder"):
        build(VideoCaptionDataset, folder, refuse)[0]


def test_a_clip_in_another_format_than_annotated_is_found(folder, tmp_path):
    video.write_clip(tmp_path / "a.mkv", 4)
    video.write_clip(tmp_path / "v1.5_b.mp4", 4)
    video.write_clip(tmp_path / "c.mp4", 4)
    (tmp_path / "c.gif").touch()
    rows = [{"video": name, "caption": "x"} for name in ("a.mp4", "v1.5_b", "c.mp4", "d.mp4")]
    (tmp_path / "ann.json").write_text(json.dumps(rows))
    dataset = build(VideoCaptionDataset, tmp_path)
    assert [dataset.file(record).name for record in dataset.records] == ["a.mkv", "v1.5_b.mp4", "c.mp4", "d.mp4"]
    assert [record.image_id for record in dataset.records] == ["a", "v1", "c", "d"]
    assert shown(dataset[0]["video"]) == [0, 1, 2, 3]


def test_frames_to_show_are_those_of_the_file(folder):
    dataset = build(VideoCaptionDataset, folder)
    frames = dataset.load_clip(0)
    assert frames.dtype == torch.uint8 and frames.shape == (4, 64, 96, 3)
    assert video.numbers(frames.numpy()) == sample_frames(30, 4)
    assert video.numbers(dataset.load_clip(0, 2).numpy()) == sample_frames(30, 2)
    assert dataset.load_clip(2) == BadSample(str(folder / "gone.mp4"), "no such file")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_through_lavis_concatenation_and_a_loader(folder, workers):
    dataset = concat_datasets({"train": [build(VideoCaptionDataset, folder)]})["train"]
    loader = DataLoader(dataset, batch_size=3, num_workers=workers, collate_fn=dataset.collater)
    first, second = loader
    assert first["video"].shape == (2, 3, 4, 32, 32)
    assert [shown(clip) for clip in first["video"]] == [sample_frames(30, 4)] * 2
    assert first["text_input"] == ["long.", "a long one"] and first["image_id"] == ["long", "long"]
    assert first["bad_samples"] == [f"{folder / 'gone.mp4'}: no such file"]
    assert second["image_id"] == ["short"]
    assert len(second["bad_samples"]) == 1 and "text.mp4: damaged" in second["bad_samples"][0]


def test_batches_of_bad_clips_alone_are_counted_and_stop_a_run(folder):
    dataset = build(VideoCaptionDataset, folder)
    batch = dataset.collater([dataset[2], dataset[3]])
    assert set(batch) == {"bad_samples"} and batch_size(batch) == 0
    good = dataset.collater([dataset[0], dataset[2], dataset[4]])
    assert batch_size(good) == 2
    tally = BadSampleTally(max_share=0.05)
    tally.show(batch)
    tally.add(batch_size(good), len(good["bad_samples"]))
    with pytest.raises(DataError, match=r"gone\.mp4: no such file"):
        for _ in range(60):
            tally.add(batch_size(batch), len(batch["bad_samples"]))


@pytest.fixture
def pictures(tmp_path):
    for number, colour in enumerate([(255, 0, 0), (0, 255, 0)]):
        Image.new("RGB", (8, 6), colour).save(tmp_path / f"{number}.png")
    rows = [{"image": f"{number}.png", "caption": [f"Picture {number}", "x"]} for number in range(3)]
    (tmp_path / "pictures.json").write_text(json.dumps(rows))
    return tmp_path


def static(cls, pictures, vis_processor=to_tensor, **options):
    return cls(vis_processor, str.lower, str(pictures), [str(pictures / "pictures.json")], num_frames=4, **options)


def test_a_picture_stands_still_for_all_frames_in_the_memory_of_one(pictures):
    dataset = static(StaticVideoCaptionDataset, pictures, captions="first")
    assert len(dataset) == 3
    item = dataset[1]
    assert set(item) == {"video", "text_input", "image_id"}
    assert item["video"].shape == (3, 4, 6, 8) and item["video"].untyped_storage().nbytes() == 3 * 6 * 8 * 4
    assert item["video"][:, :, 0, 0].tolist() == [[0.0] * 4, [1.0] * 4, [0.0] * 4]
    batch = dataset.collater([dataset[index] for index in range(3)])
    assert batch["video"].shape == (2, 3, 4, 6, 8) and batch["video"].is_contiguous()
    assert batch["bad_samples"] == [f"{pictures / '2.png'}: no such file"]


def test_a_random_picture_processor_is_asked_once_for_all_frames(pictures):
    dataset = static(StaticVideoCaptionDataset, pictures, lambda picture: to_tensor(picture) + torch.rand(1))
    clip = dataset[0]["video"]
    assert all(torch.equal(clip[:, 0], clip[:, frame]) for frame in range(1, 4))
    assert not torch.equal(clip, dataset[0]["video"])


def test_static_clips_can_be_evaluated_but_not_cached_as_pictures(pictures):
    dataset = static(StaticVideoCaptionEvalDataset, pictures)
    assert (dataset[1]["image_id"], dataset[1]["instance_id"], dataset[1]["text_input"]) == ("1", "1", "picture 1")
    assert dataset.ground_truth()["1"] == ["Picture 1", "x"]
    assert not hasattr(dataset, "image_key"), "features of a picture are not those of a clip"


def test_pictures_and_clips_mix_in_one_batch(folder, pictures):
    picture = processor("blip_image_eval", image_size=32)
    parts = [build(VideoCaptionDataset, folder), static(StaticVideoCaptionDataset, pictures, picture)]
    dataset = concat_datasets({"train": parts})["train"]
    batch = dataset.collater([dataset[0], dataset[5], dataset[2]])
    assert batch["video"].shape == (2, 3, 4, 32, 32) and batch["image_id"] == ["long", "0"]
    assert batch["bad_samples"] == [f"{folder / 'gone.mp4'}: no such file"]


def test_clips_of_different_length_in_one_batch_are_an_error_that_says_so():
    item = {"text_input": "x", "image_id": "x"}
    samples = [{"video": torch.zeros(3, frames, 8, 8), **item} for frames in (4, 8)]
    with pytest.raises(DataError, match=r"differ in the shape of 'video': \(3, 4, 8, 8\), \(3, 8, 8, 8\); give all"):
        collate(samples)

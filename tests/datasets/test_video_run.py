"""Runs of a tiny video model on clips some of which cannot be read, from the configuration to the scores."""

import json
from pathlib import Path

import pytest
import torch
import video_files as video
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_evlgen import launch
from lavis_evlgen.errors import DataError


@pytest.fixture
def run(tmp_path, tiny_config, monkeypatch):
    """Trains on ``good`` clips and ``bad`` ones, half of these damaged and half missing; the folder of the run."""
    paths = dict(registry.mapping["paths"])

    def start(good: int, bad: int, **options) -> Path:
        names = [f"good{number}.mp4" for number in range(good)] + [f"bad{number}.mp4" for number in range(bad)]
        for number in range(good):
            video.write_clip(tmp_path / names[number], 5 + number)
        for number in range(0, bad, 2):
            (tmp_path / f"bad{number}.mp4").write_text("no video")
        rows = [{"video": name, "caption": f"a clip called {name}"} for name in names]
        (tmp_path / "clips.json").write_text(json.dumps(rows))
        sizes = {"image_size": 56, "num_frames": 3}
        config = {
            "model": {"arch": "evlgen_video", "model_type": "custom", **tiny_config("video_opt"), "num_frames": 3},
            "datasets": {
                "video_caption": {
                    "videos": str(tmp_path),
                    "annotations": {split: str(tmp_path / "clips.json") for split in ("train", "val")},
                    "vis_processor": {name: {"name": f"evlgen_video_{name}", **sizes} for name in ("train", "eval")},
                }
            },
            "run": {
                "task": "captioning",
                "device": "cpu",
                "num_threads": 1,
                "batch_size_train": 4,
                "batch_size_eval": 4,
            }
            | {"output_dir": str(tmp_path / "out"), "auto_resume": True, "num_beams": 1, "max_len": 3, "log_freq": 1}
            | options,
        }
        OmegaConf.save(OmegaConf.create(config), tmp_path / "run.yaml")
        launch.start(["--cfg-path", str(tmp_path / "run.yaml")], False)
        return tmp_path / "out"

    yield start
    registry.mapping["paths"] = paths
    torch.set_num_threads(1)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_clips_are_left_out_counted_and_named(run, workers, caplog):
    with caplog.at_level("WARNING"):
        out = run(6, 2, max_iters=4, valid_splits=["val"], max_bad_share=0.5, num_workers=workers)
    steps = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [step["iters"] for step in steps if "loss" in step] == [1, 2, 3, 4]
    captions = json.loads(next((out / "result").glob("val_*[0-9].json")).read_text())
    assert sorted(row["image_id"] for row in captions) == [f"good{number}" for number in range(6)]
    skipped = json.loads(next((out / "result").glob("val_*_skipped.json")).read_text())
    assert [Path(line.split(": ")[0]).name for line in skipped] == ["bad0.mp4", "bad1.mp4"]
    assert skipped[1].endswith("no such file")
    assert "skipped a bad sample: " in caplog.text and "bad0.mp4: damaged, or no video" in caplog.text


def test_too_many_bad_clips_stop_the_run(run):
    with pytest.raises(
        DataError, match=r"samples could not be read, more than run\.max_bad_share \(0\.05\).*bad\d\.mp4"
    ):
        run(1, 7, max_iters=40)

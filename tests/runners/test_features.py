"""Training on features from disk in the place of the ViT, by one process and by two that compute them together."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import losses, rows, write_config

from lavis_evlgen.datasets.feature_cache import FeatureCache
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.vision import VisionTower


@pytest.fixture
def config(tmp_path, tiny_config):
    """Writes eleven training pictures, one of them cut off, four for validation, and configurations that use them."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 11), ("val", 4)):
        records = []
        for number in range(count):
            path = tmp_path / f"{split}{number}.png"
            Image.fromarray(generator.integers(0, 256, (60, 50, 3), dtype=np.uint8)).save(path)
            records.append({"image": path.name, "caption": [f"a cat {number}", "a car"]})
        (tmp_path / f"{split}.json").write_text(json.dumps(records))
    cut_off = tmp_path / "train3.png"
    cut_off.write_bytes(cut_off.read_bytes()[:300])
    eval_processor = {"name": "blip_image_eval", "image_size": 56}

    def write(out="out", train_processor=eval_processor, model=None, **run):
        data = {
            "image_caption": {
                "images": str(tmp_path),
                "annotations": {split: str(tmp_path / f"{split}.json") for split in ("train", "val")},
                "vis_processor": {"train": train_processor, "eval": eval_processor},
                "text_processor": {"train": {"name": "blip_caption"}},
            }
        }
        model = {**tiny_config("any"), "arch": "evlgen", "model_type": "custom", **(model or {})}
        options = {"task": "captioning", "max_iters": 6, "iters_per_inner_epoch": 6, "max_len": 5, "num_beams": 1}
        return write_config(
            tmp_path, out, model, data, **{**options, "valid_splits": ["val"], "max_bad_share": 1, **run}
        )

    return write


@pytest.fixture
def passes(monkeypatch):
    """Pictures that the ViT saw in this process, a pass each."""
    counts = []
    forward = VisionTower.forward
    monkeypatch.setattr(
        VisionTower, "forward", lambda self, images: counts.append(len(images)) or forward(self, images)
    )
    return counts


def test_cached_features_train_as_the_vit_does(config, train, tmp_path, passes, caplog):
    plain = train(config("plain"))
    assert sum(passes) == 6 * 4 - 1 + 4  # one of the training pictures is cut off
    passes.clear()
    cached = train(config("cached", feature_cache=str(tmp_path / "features")))
    assert sum(passes) == 14  # each picture once
    assert cached["val"].keys() == plain["val"].keys()
    for (step, loss, _), (other_step, other, _) in zip(
        losses(tmp_path / "plain"), losses(tmp_path / "cached"), strict=True
    ):
        assert step == other_step and loss == pytest.approx(other, rel=1e-3)
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == [
        "image_caption-train",
        "image_caption-val",
    ]
    assert f"1 pictures could not be read, e.g. {tmp_path}/train3.png: " in caplog.text
    (record,) = rows(tmp_path / "cached", "feature_seconds")
    assert record["feature_seconds"] >= 0
    passes.clear()
    train(config("again", feature_cache=str(tmp_path / "features")))
    assert not passes and losses(tmp_path / "again") == losses(tmp_path / "cached")


def test_two_processes_compute_the_features_together(config, train, run_processes, tmp_path):
    assert run_processes(config("two", feature_cache=str(tmp_path / "shared"))) == [0, 0], (
        tmp_path / "log.0"
    ).read_text()[-1500:] + (tmp_path / "log.1").read_text()[-1500:]
    train(config("one", feature_cache=str(tmp_path / "alone")))
    one, two = tmp_path / "alone" / "image_caption-train", tmp_path / "shared" / "image_caption-train"
    assert [len(np.load(path)) for path in sorted(two.glob("*.npy"))] == [6, 5]
    (whole,) = one.glob("*.npy")
    parts = np.concatenate([np.load(path) for path in sorted(two.glob("*.npy"))])
    torch.testing.assert_close(torch.from_numpy(parts), torch.from_numpy(np.load(whole)), rtol=1e-2, atol=1e-2)


def test_features_of_another_vit_stop_every_process(config, train, run_processes, tmp_path):
    cache = {"feature_cache": str(tmp_path / "features")}
    train(config("first", **cache))
    with pytest.raises(ConfigError, match=r"features/image_caption-val holds features that were made by another ViT"):
        train(config("other", seed=43, **cache))  # the tiny ViT's weights are drawn with the run's seed
    assert run_processes(config("others", seed=43, **cache)) == [2, 2]
    assert "made by another ViT" in (tmp_path / "log.0").read_text()


def test_where_features_cannot_be_computed_once(config, train, tmp_path):
    cache = {"feature_cache": str(tmp_path / "features")}
    with pytest.raises(ConfigError, match="Blip2ImageTrainProcessor is random: set vis_processor.train to"):
        train(config("augmented", {"name": "blip2_image_train", "image_size": 56}, **cache))
    with pytest.raises(ConfigError, match="needs a model with a frozen ViT"):
        train(config("trained", model={"freeze_vit": False}, **cache))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run.feature_cache: .*file/image_caption-val cannot be made"):
        train(config("no_folder", feature_cache=str(tmp_path / "file")))


def test_a_signal_between_pictures_keeps_the_features_so_far(config, train, tmp_path, passes, monkeypatch):
    argv = config(feature_cache=str(tmp_path / "features"))
    with monkeypatch.context() as patch:
        forward = VisionTower.forward

        def interrupted(self, images):
            if len(passes) == 2:  # the validation pictures are there, the training pictures are next
                os.kill(os.getpid(), signal.SIGUSR1)
            return forward(self, images)

        patch.setattr(VisionTower, "forward", interrupted)
        patch.setattr(FeatureCache.compute, "__defaults__", (3, *FeatureCache.compute.__defaults__[1:]))  # batch_size
        with pytest.raises(SystemExit) as left:
            train(argv)
    assert left.value.code == 143 and passes == [3, 1, 3]
    passes.clear()
    train(argv)
    assert sum(passes) == 10  # the training pictures alone, whose shard was not finished

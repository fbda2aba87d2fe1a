"""The command `evlgen demo`: arms are trained once, kept, and reported together."""

import json
from pathlib import Path

import pytest

pytest.importorskip("minigrid")

from lavis_evlgen import cli, demos
from lavis_evlgen.errors import ConfigError, EvlgenError

ROOT = Path(__file__).parent.parent
FEW = {"train": 8, "val": 2, "test": 4, "unseen": 2}
LENGTHS = ["run.max_iters=2", "run.iters_per_inner_epoch=2", "run.health_freq=2", "run.log_freq=1", "run.max_len=4"]


def test_project_files_are_found_from_the_working_directory_and_from_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert demos.project_file("video.yaml") == ROOT / "projects/demo/video.yaml"
    own = tmp_path / "projects/demo/video.yaml"
    own.parent.mkdir(parents=True)
    own.touch()
    assert demos.project_file("video.yaml") == own
    with pytest.raises(ConfigError, match=r"projects/demo/other.yaml is not here: run the demo in a checkout"):
        demos.project_file("other.yaml")


def test_the_faster_precision_is_one_of_two():
    assert demos.faster_precision() in ("fp32", "bf16")


def test_an_unknown_arm_is_an_error_before_anything_is_made(tmp_path, capsys):
    assert cli.main(["demo", "--video", "--out", str(tmp_path / "out"), "--arms", "mean,concatt"]) == 2
    assert "--arms: 'concatt' is unknown; did you mean 'concat'?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_arm_of_other_options_is_not_continued(tmp_path):
    (tmp_path / "mean").mkdir()
    begun = {"yaml": "", "options": ["run.precision=fp32"], "clips": {}}
    (tmp_path / "mean/begun.json").write_text(json.dumps(begun))
    with pytest.raises(ConfigError, match=r"mean was made with other options, clips or another yaml"):
        demos.video_demo(tmp_path, ["mean"], "fp32", train=2, val=0, test=0, unseen=0)


@pytest.mark.slow
def test_a_training_that_fails_ends_the_demo_and_leaves_the_arm_open(tmp_path):
    with pytest.raises(EvlgenError, match="the training of mean ended with code 2"):
        demos.video_demo(tmp_path, ["mean"], "fp32", ["run.no_such_key=1"], train=2, val=2, test=2, unseen=2)
    assert not (tmp_path / "mean/arm.json").exists() and (tmp_path / "mean/begun.json").exists()


@pytest.mark.slow
def test_picture_demo_trains_and_reports(tmp_path):
    few = {"things": 12, "train": 24, "val": 6, "test": 6, "unseen": 6, "unseen_things": 3}
    found = demos.picture_demo(tmp_path / "demo", LENGTHS, **few)
    assert found["steps"] == 2 and found["cider"] is not None and found["shuffled_loss"] is not None
    assert (tmp_path / "demo/report.html").is_file() and any((tmp_path / "demo/features").iterdir())


@pytest.mark.slow
def test_video_demo_trains_every_arm_reports_and_captions(tmp_path, monkeypatch, capsys):
    """The demo's own yaml on its own weights and clips, two steps an arm; then again, with nothing left to do."""
    monkeypatch.chdir(tmp_path)
    out = Path("outputs/demo_video")
    found = demos.video_demo(out, tuple(demos.ARMS), "auto", LENGTHS, **FEW)
    assert list(found["arms"]) == list(demos.ARMS)
    for name, arm in found["arms"].items():
        assert arm["steps"] == 2 and list(arm["splits"]) == ["test", "test_unseen"]
        assert all(0 <= split["order_accuracy"] <= 1 and split["clips"] for split in arm["splits"].values())
        assert 0.5 < arm["peak_memory_gib"] < 16 and arm["train_seconds"] > 0, name
    for name in ("contextualizer", "mean"):
        assert {split["order_accuracy"] for split in found["arms"][name]["splits"].values()} == {0.5}, name
    arms = found["arms"]
    assert arms["concat"]["soft_prompt_tokens"] == 4 * arms["mean"]["soft_prompt_tokens"]
    added = arms["contextualizer"]["trainable_parameters"] - arms["mean"]["trainable_parameters"]
    assert added == 12 * (2 * (384 * 256 + 256) + 1)
    assert arms["time_embedding"]["trainable_parameters"] - arms["mean"]["trainable_parameters"] == added + 12 * 4 * 384

    made = {path: path.stat().st_mtime_ns for path in out.glob("*/*") if path.name != "report.html"}
    again = demos.video_demo(out, tuple(demos.ARMS), "auto", LENGTHS, **FEW)
    assert again["arms"] == found["arms"]
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*") if path.name != "report.html"} == made
    with pytest.raises(ConfigError, match="contextualizer was made with other options"):
        demos.video_demo(out, tuple(demos.ARMS), "auto", [*LENGTHS, "run.seed=1"], **FEW)

    capsys.readouterr()
    clip = str(out / "data/test/000000.mp4")
    assert cli.main(["caption", "--model", "evlgen_video", "--model-type", "demo", "--max-length", "4", clip]) == 0
    assert capsys.readouterr().out.startswith(f"{clip}: ")

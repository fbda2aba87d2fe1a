"""The report of a comparison: two real, short runs of tiny models on MiniGrid clips."""

import base64
import io
import json
import re
import shutil
from html import escape
from statistics import mean

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

pytest.importorskip("minigrid")

from lavis_evlgen import cli, launch
from lavis_evlgen.datasets.records import Record
from lavis_evlgen.embedded.episodes import build
from lavis_evlgen.errors import DataError
from lavis_evlgen.reports.arms import find_arms, holds_arms
from lavis_evlgen.reports.order import likelihoods, order_scores
from lavis_evlgen.reports.run_files import RunFiles
from lavis_evlgen.reports.strips import GAP, pairs, strip
from lavis_evlgen.reports.video_demo import write_video_report

ARMS = {"mean": {"temporal": "mean"}, "time_embedding": {"temporal": "contextualizer", "time_embedding": True}}


def train_arm(folder, name, model, data):
    processor = {"name": "evlgen_video_eval", "image_size": 56, "num_frames": 4}
    config = {
        "model": {"arch": "evlgen_video", "model_type": "custom", **model, **ARMS[name]},
        "datasets": {
            "video_caption": {
                "videos": str(data),
                "annotations": {file.stem: str(file) for file in sorted(data.glob("*.jsonl"))},
                "vis_processor": {"train": processor, "eval": processor},
            }
        },
        "run": {
            "task": "captioning",
            "max_iters": 4,
            "batch_size_train": 2,
            "batch_size_eval": 3,
            "init_lr": 1e-3,
            "log_freq": 2,
            "health_freq": 2,
            "num_beams": 1,
            "max_len": 4,
            "attributes": ["verb"],
            "metrics_tokenizer": "java_free",
            "valid_splits": ["test"],
            "test_splits": ["test", "test_unseen"],
            "output_dir": str(folder / name),
            "auto_resume": True,
            "device": "cpu",
            "num_threads": 1,
        },
    }
    path = folder / f"{name}.yaml"
    OmegaConf.save(OmegaConf.create(config), path)
    launch.start(["--cfg-path", str(path)], evaluate=False)
    (folder / name / "arm.json").write_text(json.dumps({"arm": name, "peak_memory_gib": 1.25}))


@pytest.fixture(scope="module")
def folder(tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    data = build(folder / "data", train=6, val=0, test=4, unseen=2)
    model = tiny_config("video")
    model["connector_config"] = dict(model["connector_config"])
    for name in ARMS:
        train_arm(folder, name, model, data)
    return folder


@pytest.fixture(scope="module")
def report(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "below"
    found = write_video_report(folder, out, command="make it --so")
    assert found == json.loads((out / "report.json").read_text())
    return found, (out / "report.html").read_text()


def test_figures_are_those_of_the_runs(report, folder):
    found, _ = report
    assert list(found["arms"]) == list(ARMS) and found["order_chance"] == 0.5 and found["command"] == "make it --so"
    for name, arm in found["arms"].items():
        log = [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]
        scores = {
            split: each
            for line in (folder / name / "evaluate.txt").read_text().splitlines()
            for split, each in json.loads(line).items()
        }
        assert list(arm["splits"]) == ["test", "test_unseen"]
        for split, values in arm["splits"].items():
            assert (values["cider"], values["exact_match"]) == (scores[split]["CIDEr"], scores[split]["exact_match"])
            assert (values["verb_right"], values["clips"]) == (scores[split]["verb_right"], scores[split]["captions"])
        assert (arm["steps"], arm["peak_memory_gib"]) == (4, 1.25)
        assert arm["train_loss"] == [row["loss"] for row in log if "loss" in row][-1]
        assert arm["held_out_loss"] == [row["held_out_loss"] for row in log if "held_out_loss" in row][-1]
        weights = torch.load(folder / name / "model.pth", weights_only=True)["model"]
        assert arm["trainable_parameters"] == sum(tensor.numel() for tensor in weights.values())
    added = found["arms"]["time_embedding"]["trainable_parameters"] - found["arms"]["mean"]["trainable_parameters"]
    assert added == sum(tensor.numel() for name, tensor in weights.items() if name.startswith("temporal."))
    assert found["arms"]["time_embedding"]["time_embedding"] and not found["arms"]["mean"]["time_embedding"]


def test_a_mean_of_frames_is_right_for_one_clip_of_every_pair(report, folder):
    found, _ = report
    right = json.loads((folder / "mean" / "order.json").read_text())["right"]
    assert {split: len(each) for split, each in right.items()} == {"test": 8, "test_unseen": 4}
    for each in right.values():
        assert all(each[image_id] != each[f"{image_id}_reversed"] for image_id in each if not image_id.endswith("d"))
    assert [split["order_accuracy"] for split in found["arms"]["mean"]["splits"].values()] == [0.5, 0.5]
    assert found["arms"]["mean"]["splits"]["test"]["order_by_mission"] == dict.fromkeys(
        ("go to", "pick up", "open", "put next to"), 0.5
    )


def test_order_accuracy_is_the_mean_of_the_choices(report, folder):
    found, _ = report
    for name, arm in found["arms"].items():
        right = json.loads((folder / name / "order.json").read_text())["right"]
        assert all(arm["splits"][split]["order_accuracy"] == mean(right[split].values()) for split in right)


def test_choices_are_kept_until_the_weights_change(folder, tmp_path):
    run = tmp_path / "mean"
    shutil.copytree(folder / "mean", run)
    kept = json.loads((run / "order.json").read_text()) | {"weights": (run / "model.pth").stat().st_mtime_ns}
    marked = {**kept, "right": {"test": {"x": True}}}
    (run / "order.json").write_text(json.dumps(marked))
    assert order_scores(RunFiles.read(run)) == marked
    (run / "model.pth").touch()
    assert order_scores(RunFiles.read(run))["right"]["test"].keys() == kept["right"]["test"].keys() - {"x"}


def test_likelihoods_are_minus_the_losses_of_all_tokens(tiny_model):
    model = tiny_model("video", temporal="mean")
    prompt = model.soft_prompt({"video": torch.randn(2, 3, 4, 56, 56)})
    texts = ["open the door", "go"]
    losses = []
    for row, text in enumerate(texts):
        tokens = len(model.language.encode_text(text, "")[1])
        losses.append(float(model.language.loss(prompt[row : row + 1], [text])) * tokens)
    assert likelihoods(model, prompt, texts).tolist() == pytest.approx([-loss for loss in losses], rel=1e-4)


def test_page_is_complete_and_needs_no_other_file(report):
    _, html = report
    assert len(html) < 3_000_000 and not re.findall(r'(?:src|href)="(?!data:)', html)
    for title in ("Scores", "Order in time", "Learning", "Clips of test", "Clips of test unseen", "Cost", "The runs"):
        assert f"<h2>{title}</h2>" in html
    assert html.count("<polyline") == 4
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td>", html)
    assert [row for row in rows if row[0] in ("mean", "chance")][:2] == [("mean", "50 %"), ("chance", "50 %")]
    assert ("open … / close …", "50 %") in rows and "make it --so" in html and "MiniGrid" in html


def test_clips_stand_beside_their_reverses_with_what_was_written(report, folder):
    _, html = report
    records = [
        json.loads(line) for split in ("test", "test_unseen") for line in (folder / "data" / f"{split}.jsonl").open()
    ]
    shown = re.findall(r"<figcaption><strong>(.*?)</strong><ul>(.*?)</ul>", html)
    assert sorted(truth for truth, _ in shown) == sorted(record["caption"] for record in records)
    mirrors = {record["caption"]: record["mirror_caption"] for record in records}
    truths = [truth for truth, _ in shown]
    assert all(mirrors[one] == other for one, other in zip(truths[::2], truths[1::2], strict=True))
    written = [row["caption"] for row in json.loads((folder / "mean/result/test_epoch4.json").read_text())]
    listed = " ".join(lines for _, lines in shown)
    assert all(f"{escape(caption) or '(nothing)'} <span class=soft>mean</span>" in listed for caption in written)
    strips = re.findall(r'<figure><img src="data:image/jpeg;base64,([^"]+)"', html)
    sizes = {Image.open(io.BytesIO(base64.b64decode(data))).size for data in strips}
    assert sizes == {(4 * 112 + 3 * GAP, 112)} and len(strips) == 12


def test_strips_are_frames_side_by_side():
    frames = [np.full((20, 30, 3), value, np.uint8) for value in (10, 200)]
    drawn = np.asarray(strip(frames, gap=3, side=40))
    assert drawn.shape == (40, 123, 3)
    assert (drawn[:, :60] == 10).all() and (drawn[:, 60:63] == 255).all() and (drawn[:, 63:] == 200).all()


def test_pairs_take_the_missions_in_turn_and_need_both_clips():
    records = [
        Record(f"{name}.mp4", ["x"], name, {"mission": name[0]})
        for name in ("a1", "a1_reversed", "a2", "a2_reversed", "b1", "b1_reversed", "c1")
    ]
    found = pairs(records, 2)
    assert {records[one].image_id[0] for one, _ in found} == {"a", "b"}
    assert all(records[other].image_id == f"{records[one].image_id}_reversed" for one, other in found)
    assert len(pairs(records, 9)) == 3 and pairs(records, 9)[:2] == found == pairs(records, 2)


def test_the_command_tells_a_comparison_from_a_run(folder, tmp_path, capsys):
    assert holds_arms(folder) and not holds_arms(folder / "mean")
    assert cli.main(["report", str(folder), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"mean, test: order_accuracy 0\.500, exact_match 0\.\d{3}, cider \d\.\d{3}", lines[0])
    assert lines[-1] == str(tmp_path / "out" / "report.html") and len(lines) == 5


def test_what_is_no_finished_comparison_is_said(folder, tmp_path):
    with pytest.raises(DataError, match="holds no finished run of a comparison"):
        find_arms(tmp_path)
    shutil.copytree(folder / "mean", tmp_path / "mean")
    (tmp_path / "mean" / "model.pth").unlink()
    with pytest.raises(DataError, match=r"model.pth is missing: train the run to its end"):
        find_arms(tmp_path)

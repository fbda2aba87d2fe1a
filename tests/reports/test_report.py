"""The report of a real, short run."""

import base64
import importlib.metadata
import io
import json
import re
import shutil
from html import escape

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image
from reports.finished_run import make_data, train

from lavis_evlgen.errors import DataError
from lavis_evlgen.reports.examples import examples
from lavis_evlgen.reports.run_files import RunFiles
from lavis_evlgen.reports.run_report import model_as_built, write_report
from lavis_evlgen.reports.tokens.map import BORDER
from lavis_evlgen.reports.usage import command_of_run


@pytest.fixture(scope="module")
def model_keys(tiny_config) -> dict:
    config = tiny_config("any")
    config["connector_config"] = dict(config["connector_config"])
    return config


@pytest.fixture(scope="module")
def run_dir(model_keys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    files = make_data(folder)
    (folder / "ATTRIBUTION.txt").write_text("Drawn by <hand>.\n\nFree.")
    return train(folder, model_keys, files, valid_splits=["test"], health_freq=2)


@pytest.fixture(scope="module")
def report(run_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "below"
    found = write_report(run_dir, out, command="make it --so")
    assert found == json.loads((out / "report.json").read_text())
    return found, (out / "report.html").read_text()


def test_figures_are_those_of_the_run(report, run_dir):
    found, _ = report
    log = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    scores = {
        split: s
        for line in (run_dir / "evaluate.txt").read_text().splitlines()
        for split, s in json.loads(line).items()
    }
    assert found["splits"] == scores and set(scores) == {"test", "test_unseen"}
    assert (found["cider"], found["exact_match"]) == (scores["test"]["CIDEr"], scores["test"]["exact_match"])
    assert found["named_right"] == scores["test"]["named_right"]
    assert found["background_right_unseen"] == scores["test_unseen"]["background_right"]
    health = [row for row in log if "held_out_loss" in row]
    assert len(health) == 2 and found["held_out_loss"] == health[-1]["held_out_loss"]
    assert found["shuffled_loss"] == health[-1]["shuffled_loss"]
    assert (found["steps"], found["images_seen"]) == (4, 16)
    speeds = [row["images_per_s"] for row in log if "images_per_s" in row]
    assert found["train_seconds"] == pytest.approx(sum(2 * 4 / speed for speed in speeds), abs=0.06)
    assert found["trainable_parameters"] == sum(
        tensor.numel() for tensor in torch.load(run_dir / "model.pth", weights_only=True)["model"].values()
    )
    assert (found["tokens_in"], found["tokens_out"]) == (17, 5)
    assert found["command"] == "make it --so" and found["config"]["tome_r"] == 4
    assert found["versions"]["torch"] == importlib.metadata.version("torch") and found["machine"]["cores"] >= 1


def test_page_is_complete_and_needs_no_other_file(report, run_dir):
    found, html = report
    assert len(html) < 3_000_000
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    for title in ("Pictures it never saw", "Things it never saw", "Which patches became one token", "Learning"):
        assert f"<h2>{title}</h2>" in html
    marks = re.findall(r"<strong>(.*?)</strong><span class=(?:good|bad)>. named (right|wrong)", html)
    written = []
    for split in ("test", "test_unseen"):
        path = run_dir / "result" / f"{split}_epoch{found['splits'][split]['epoch']}.json"
        written += [escape(row["caption"]) or "(nothing)" for row in json.loads(path.read_text())]
    assert sorted(text for text, _ in marks) == sorted(written) and len(written) == 5
    assert "<li>red &amp; box</li>" in html and "red & box" not in html
    assert "Drawn by &lt;hand&gt;." in html
    assert f"caption --checkpoint {run_dir / 'model.pth'} photo.jpg" in html


def test_curves_end_at_the_last_step(report):
    lines = re.findall(r'<polyline points="([^"]+)"', report[1])
    assert len(lines) == 3
    ends = {line.split()[-1].split(",")[0] for line in lines}
    assert len(ends) == 1


def test_token_maps_are_of_the_fresh_and_of_the_trained_model(report, run_dir):
    pictures = re.findall(
        r'<figure><img src="data:image/jpeg;base64,([^"]+)" alt="(?:picture|before training|after training)"', report[1]
    )
    sizes = {Image.open(io.BytesIO(base64.b64decode(data))).size for data in pictures}
    assert len(pictures) == 9 and sizes == {(448, 448)} and BORDER < 448 // 4
    run = RunFiles.read(run_dir)
    fresh = model_as_built(run).trainable_state_dict()
    checkpoint = torch.load(run_dir / "model.pth", weights_only=True)["model"]
    moved = max((fresh[name] - checkpoint[name]).abs().max().item() for name in fresh)
    assert 0 < moved < 0.01, "four small steps away from where the run began"


def test_examples_are_the_same_every_time_and_leave_out_broken_pictures(run_dir):
    run = RunFiles.read(run_dir)
    first, again = (examples(run, "test", 2) for _ in range(2))
    assert [e.record.image_id for e in first] == [e.record.image_id for e in again] and len(first) == 2
    broken = run_dir.parent / first[0].record.image
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    try:
        left = examples(run, "test", 12)
    finally:
        broken.write_bytes(whole)
    assert len(left) == 2 and first[0].record.image_id not in [e.record.image_id for e in left]


def test_examples_know_what_is_right(run_dir):
    (example, *_) = examples(RunFiles.read(run_dir), "test", 1)
    shape, text = example.record.extras["things"][0], example.record.captions[0]
    said = {
        caption: type(example)(example.record, example.picture, caption, example.dataset)
        for caption in (text.upper(), shape, "")
    }
    assert [(e.named_right, e.word_for_word) for e in said.values()] == [(True, True), (True, False), (False, False)]


def test_own_data_without_labels_and_with_a_q_former(model_keys, tmp_path):
    files = make_data(tmp_path, {"train": 4, "val": 2}, labels=False)
    model = {**model_keys, "connector": "qformer", "num_query_token": 3}
    run_dir = train(tmp_path, model, files, max_iters=1, test_splits=[], valid_splits=["val"])
    found = write_report(run_dir)
    assert (found["known_split"], found["unseen_split"], found["tokens_out"]) == ("val", None, 3)
    assert found["named_right"] is None and found["named_right_unseen"] is None and found["held_out_loss"] is None
    assert not [name for name in found if name.endswith("_right") and name != "named_right"]
    html = (run_dir / "report.html").read_text()
    assert (
        "named" not in html.split("</style>")[1]
        and "Things it never saw" not in html
        and "became one token" not in html
    )
    assert "<polyline" in html and "ROUGE L" in html


def test_the_command_names_the_model_type_where_its_yaml_has_these_weights(run_dir, tmp_path, monkeypatch):
    cls = registry.get_model_class("evlgen")
    yaml = OmegaConf.load(cls.default_config_path("custom"))
    yaml.model.pretrained = "run/model.pth"
    OmegaConf.save(yaml, tmp_path / "mine.yaml")
    monkeypatch.setitem(cls.PRETRAINED_MODEL_CONFIG_DICT, "custom", str(tmp_path / "mine.yaml"))
    monkeypatch.chdir(run_dir.parent)
    command = command_of_run(RunFiles.read("run"))
    assert command == "python -m lavis_evlgen.cli caption --model evlgen --model-type custom photo.jpg"


def test_what_is_no_finished_run_is_said(run_dir, tmp_path):
    with pytest.raises(DataError, match=rf"is no run folder.*did you mean {re.escape(str(run_dir))}"):
        write_report(run_dir.parent)
    with pytest.raises(DataError, match="name the run.output_dir"):
        write_report(tmp_path)
    shutil.copy(run_dir / "config.yaml", tmp_path)
    with pytest.raises(DataError, match=r"evaluate.txt holds no evaluation: let the run end"):
        write_report(tmp_path)
    shutil.copy(run_dir / "evaluate.txt", tmp_path)
    with pytest.raises(DataError, match=r"test_epoch.*json is missing: evaluate the run again"):
        write_report(tmp_path)

"""Reports of runs that answer questions, and of runs on clips, through the real launcher."""

import json
import re
from dataclasses import replace

import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf
from reports.finished_run import datasets, draw, write_config
from video_files import SIZE, write_clip

from lavis_evlgen import launch
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.interchange.export import export
from lavis_evlgen.loading import load_checkpoint_and_preprocess
from lavis_evlgen.reports.examples import CLIP_FRAMES, Example, examples
from lavis_evlgen.reports.run_files import RunFiles
from lavis_evlgen.reports.run_report import write_report
from lavis_evlgen.reports.strips import GAP
from lavis_evlgen.reports.usage import command, command_of_run

ANNOTATORS = ["box"] * 7 + ["square"] * 2 + ["cube"]


def run(folder, model, section, **options):
    """Train as the section of data says; the run folder."""
    path = write_config(folder, model, {}, **options)
    config = OmegaConf.load(path)
    config.datasets = section
    config.run = {key: value for key, value in config.run.items() if value is not None}
    OmegaConf.save(config, path)
    launch.start(["--cfg-path", str(path)], evaluate=False)
    return folder / "run"


@pytest.fixture(scope="module")
def answered(tiny_config, tmp_path_factory):
    """A run on questions, of three types, in the validation split."""
    folder = tmp_path_factory.mktemp("answered")
    for split in ("train", "val"):
        rows = []
        for number in range(4):
            draw(folder / split / f"{number}.png", ("red", "green", "blue")[number % 3], "box")
            row = {"image": f"{split}/{number}.png", "question": f"what <is> it, {number}?", "answers": ANNOTATORS}
            rows.append({**row, "question_id": f"{split} {number}", "answer_type": ("other", "yes/no")[number % 2]})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "val")}
    section = {"visual_question_answer": datasets(folder, files)["image_caption"]}
    asking = {"task": "evlgen_vqa", "prompt": "Q: {} A:", "metrics_tokenizer": None}
    return run(folder, tiny_config("any"), section, **asking, test_splits=[], valid_splits=["val"], health_freq=2)


def test_a_run_on_questions(answered):
    found, html = write_report(answered), (answered / "report.html").read_text()
    scores = RunFiles.read(answered).scores["val"]
    assert found["accuracy"] == scores["accuracy"] and found["accuracy_unseen"] is None and found["cider"] is None
    assert f"<b>{scores['accuracy']:.1f} %</b><span>of questions about new pictures: answered right</span>" in html
    assert "4 of val, drawn at random: the question, the model&#x27;s answer, then people&#x27;s." in html
    written = json.loads((answered / "result" / f"val_epoch{scores['epoch']}.json").read_text())
    shown = re.findall(r"<figcaption>(.*?)<strong>(.*?)</strong>", html)
    assert sorted(shown) == sorted((row["question"].replace("<is>", "&lt;is&gt;"), row["answer"]) for row in written)
    assert html.count("<ul><li>box (7)</li><li>square (2)</li><li>cube</li></ul>") == 4
    assert "<td>answer type: yes/no</td>" in html and "<tr><td>questions</td><td>4</td></tr>" in html
    assert "steps of 4 questions" in html and "<h2>Which patches became one token</h2>" in html
    assert f"answer --question &#x27;what is it?&#x27; --checkpoint {answered}/model.pth photo.jpg" in html


def test_answers_are_marked_by_the_rule_of_the_run(answered):
    (example, *_) = examples(RunFiles.read(answered), "val", 1)
    assert example.scoring == "vqa" and example.question.startswith("what <is> it")

    def agreement(text, record=example.record, scoring=example.scoring):
        return Example(record, example.picture, text, example.dataset, scoring).agreement

    # VQA v2 drops articles, and leaves each annotator in turn out: of two that agree (8 * 2/3 + 2 * 1/3) / 10
    said = ("a box", "square", "cube", "circle")
    assert [agreement(text) for text in said] == pytest.approx([1.0, 0.6, 0.3, 0.0])
    assert agreement("square", scoring="match") == 1.0
    assert agreement("box", replace(example.record, answers=[])) is None


def test_the_card_of_a_model_that_answers(answered, tmp_path):
    export(answered, tmp_path / "asked")
    card = (tmp_path / "asked" / "README.md").read_text()
    assert "pipeline_tag: visual-question-answering" in card and "- visual-question-answering" in card
    assert "| split | number | accuracy, % |" in card and "| questions seen | 16 |" in card
    assert "answer --question 'what is it?' --checkpoint asked photo.jpg" in card
    assert "- It answers the way questions like its training questions were answered." in card


def test_the_model_is_asked_as_it_was_in_training(answered, tmp_path, run_command):
    """Also when its folder was exported, and the loaded model saved again."""
    export(answered, tmp_path / "asked")
    loaded = load_checkpoint_and_preprocess(str(tmp_path / "asked"))[0]
    loaded.save_pretrained(tmp_path / "again")
    assert loaded.question_prompt == "Q: {} A:"
    assert "answer --question" in (tmp_path / "again" / "README.md").read_text()

    def said(source, *options):
        asked = ("answer", "--checkpoint", source, "--device", "cpu", "--question", "what?", "--num-beams", "1")
        code, out, _ = run_command(answered.parent, *asked, *options, "val/0.png")
        assert code == 0
        return out

    own = said(answered / "model.pth", "--prompt", "Q: {} A:")
    assert own != said(answered / "model.pth", "--prompt", "{}")
    sources = (answered / "model.pth", tmp_path / "asked", tmp_path / "again")
    assert [said(source) for source in sources] == [own] * 3

    config = json.loads((tmp_path / "again" / "config.json").read_text())
    (tmp_path / "again" / "config.json").write_text(json.dumps({**config, "question_prompt": "{0.__class__}"}))
    with pytest.raises(ConfigError, match=r"config.json: question_prompt: '\{0.__class__\}' must hold \{\} once"):
        load_checkpoint_and_preprocess(str(tmp_path / "again"))


def test_a_model_type_of_a_run_is_told_how_to_ask(answered, tmp_path, monkeypatch):
    cls = registry.get_model_class("evlgen")
    yaml = OmegaConf.load(cls.default_config_path("custom"))
    yaml.model.pretrained = str(answered / "model.pth")
    OmegaConf.save(yaml, tmp_path / "mine.yaml")
    monkeypatch.setitem(cls.PRETRAINED_MODEL_CONFIG_DICT, "custom", str(tmp_path / "mine.yaml"))
    expected = "answer --question 'what is it?' --model evlgen --model-type custom --prompt 'Q: {} A:' photo.jpg"
    assert command_of_run(RunFiles.read(answered)) == f"python -m lavis_evlgen.cli {expected}"


def test_a_run_on_clips(tiny_config, tmp_path):
    rows = [{"video": f"{number}.mp4", "caption": f"clip <{number}>"} for number in range(3)]
    for number, row in enumerate(rows):
        write_clip(tmp_path / row["video"], 5 + number)
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    processor = {"name": "evlgen_video_eval", "image_size": 56, "num_frames": 2}
    files = dict.fromkeys(("train", "val"), str(tmp_path / "clips.jsonl"))
    section = {"videos": str(tmp_path), "annotations": files, "vis_processor": {"train": processor, "eval": processor}}
    model = {**tiny_config("video"), "arch": "evlgen_video", "num_frames": 2}
    folder = run(tmp_path, model, {"video_caption": section}, test_splits=[], valid_splits=["val"])
    (tmp_path / "2.mp4").write_bytes(b"gone")
    shown = examples(RunFiles.read(folder), "val", 5)
    width, height = shown[0].picture.size
    assert len(shown) == 2 and (width, height) == (CLIP_FRAMES * (SIZE[0] + GAP) - GAP, SIZE[1])
    write_report(folder)
    html = (folder / "report.html").read_text()
    assert "<h2>Clips it never saw</h2>" in html and "steps of 4 clips" in html and "<li>clip &lt;0&gt;</li>" in html
    assert "Which patches became one token" not in html and "visual tokens" not in html
    assert f"caption --checkpoint {folder / 'model.pth'} clip.mp4" in html


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("--model m", False, False), "caption --model m photo.jpg"),
        (("--model m", True, True), "answer --question 'what is it?' --model m clip.mp4"),
    ],
)
def test_commands(given, expected):
    assert command(*given) == f"python -m lavis_evlgen.cli {expected}"

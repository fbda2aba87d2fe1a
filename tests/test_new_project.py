"""A configuration for one's own data: what is written trains."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from lavis_evlgen import cli, launch, new_project
from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.configuration.read import read_config
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.new_project import split_files
from lavis_evlgen.project_yaml import Project

COUNT = 12


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A working directory with twelve pictures, the first two of them the same, and a file of captions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new_project, "_token_counter", lambda llm: lambda texts: [len(t.split()) + 1 for t in texts])
    (tmp_path / "my pictures").mkdir()
    for number in range(COUNT):
        noise = Image.effect_noise((30, 20), 80).convert("RGB")
        noise.save(tmp_path / "my pictures" / f"{number}.png")
    (tmp_path / "my pictures" / "1.png").write_bytes((tmp_path / "my pictures" / "0.png").read_bytes())
    rows = [{"image": f"{n}.png", "caption": [f"picture number {n}", "noise"], "place": "home"} for n in range(COUNT)]
    write(tmp_path / "my.jsonl", rows)
    return tmp_path


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def run(*argv: str) -> int:
    return cli.main(["new-project", "--device", "cpu", *map(str, argv)])


CAPTIONS = ("--data", "my.jsonl", "--images", "my pictures")


def tiny_options(tiny_config, *further: str) -> list[str]:
    """Options that put a tiny model in the place of the embedded one, for two steps."""
    tiny = tiny_config("any", tome_r=4, num_layers=3)
    named = {key: value for key, value in tiny.items() if not isinstance(value, dict)}
    named |= {f"{key}.{name}": value for key in ("vit_config", "connector_config") for name, value in tiny[key].items()}
    named |= {"bert_model": "null", "llm_end": "null"}
    run = ("max_iters=2", "iters_per_inner_epoch=2", "warmup_steps=1", "health_freq=2", "max_len=4", "log_freq=1")
    return [*(f"model.{key}={value}" for key, value in named.items()), *(f"run.{key}" for key in run), *further]


def train(path: str, options: list[str]) -> tuple[dict, list[dict]]:
    """Metrics and log of a run."""
    metrics = launch.start(["--cfg-path", path, "--options", *options], evaluate=False)
    return metrics, read(f"outputs/{Path(path).stem}/log.jsonl")


def commands() -> list[list[str]]:
    """The commands of docs/own_data.md, without `python -m lavis_evlgen.cli`."""
    page = (Path(__file__).parent.parent / "docs" / "own_data.md").read_text()
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)).splitlines()
    return [shlex.split(line.removeprefix("python -m lavis_evlgen.cli ")) for line in lines if line]


def image_size(builder: str) -> list[str]:
    return [f"datasets.{builder}.vis_processor.{split}.image_size=56" for split in ("train", "eval")]


def test_what_is_written_for_captions_trains_and_evaluates(data, tiny_config, capsys):
    assert run(*CAPTIONS, "--val-share", "0.25") == 0
    out = capsys.readouterr().out
    assert "12 pictures, 24 captions" in out and "pictures that are the same: 1, e.g. 0.png = 1.png" in out
    assert "train: python -m lavis_evlgen.cli train --cfg-path project.yaml" in out
    rows, held_out = read("project_train.jsonl"), read("project_val.jsonl")
    assert len(rows) + len(held_out) == COUNT and 3 <= len(held_out) <= 4
    assert rows[0].keys() == {"image", "caption", "place"}
    sides = [{row["image"] for row in side} & {"0.png", "1.png"} for side in (rows, held_out)]
    assert sorted(map(len, sides)) == [0, 2], "copies of one picture must stay together"
    metrics, log = train("project.yaml", tiny_options(tiny_config, *image_size("image_caption")))
    assert metrics["val"]["captions"] == len(held_out)
    assert [row["iters"] for row in log if "loss" in row] == [1, 2]
    assert any("shuffled_loss" in row for row in log)
    assert Path("outputs/project/model.pth").is_file() and Path("outputs/project/features").is_dir()

    write(Path("test.jsonl"), [{"image": "7.png", "caption": "seven"}, {"image": "8.png", "caption": "eight"}])
    (line,) = [line for line in commands() if line[0] == "evaluate"]
    options = tiny_options(tiny_config, *image_size("image_caption"))
    metrics = launch.start([*line[1:], *options], evaluate=True)
    assert metrics["test"]["captions"] == 2 and metrics["val"]["captions"] == len(held_out)


def test_what_is_written_for_questions_trains_and_evaluates(data, tiny_config, capsys):
    rows = [
        {"image": f"{n}.png", "question": f"which number, {k}?", "answer": f"number {n}"}
        for n in range(8)
        for k in "ab"
    ]
    write(Path("q.jsonl"), [*rows, {"image": "9.png", "question": "unanswered?", "answer": ""}])
    assert run("--data", "q.jsonl", "--images", "my pictures", "--out", "asked.yaml", "--questions") == 0
    out = capsys.readouterr().out
    assert "9 pictures, 16 questions" in out and "empty questions: 1" in out
    assert "lavis_evlgen.cli answer --question TEXT --checkpoint outputs/asked/model.pth" in out
    config = OmegaConf.load("asked.yaml")
    assert config.run.task == "evlgen_vqa" and config.run.prompt == "Question: {} Short answer:"
    metrics, _ = train("asked.yaml", tiny_options(tiny_config, *image_size("visual_question_answer")))
    assert metrics["val"]["questions"] == len(read("asked_val.jsonl"))
    assert all(row["answer"] for row in read("asked_train.jsonl"))


def test_what_is_written_for_clips_trains_and_evaluates(data, tiny_config, capsys):
    from video_files import write_clip

    Path("clips").mkdir()
    rows = []
    for number in range(5):
        write_clip(Path("clips", f"{number}.mp4"), 6 + number)
        rows.append({"video": f"{number}.mp4", "caption": f"clip {number}"})
    write(Path("v.jsonl"), rows)
    assert run("--data", "v.jsonl", "--images", "clips", "--out", "clips.yaml") == 0
    assert "5 clips, 5 captions" in capsys.readouterr().out
    metrics, _ = train("clips.yaml", tiny_options(tiny_config, *image_size("video_caption"), "run.batch_size_train=2"))
    assert metrics["val"]["captions"] == 2


def test_a_file_of_ones_own_to_validate_on(data, capsys):
    with open("val.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["image", "caption"], ["3.png", "three"], ["4.png", "four"], ["gone.png", "x"]])
    assert run(*CAPTIONS, "--val", "val.csv", "--out", "deep/er/p.yaml") == 0
    out = capsys.readouterr().out
    assert "in both files, and left out of training: 2, e.g. 3.png" in out
    assert [row["image"] for row in read("deep/er/p_val.jsonl")] == ["3.png", "4.png"]
    assert {row["image"] for row in read("deep/er/p_train.jsonl")} == {f"{n}.png" for n in range(COUNT)} - {
        "3.png",
        "4.png",
    }
    assert OmegaConf.load("deep/er/p.yaml").datasets.image_caption.annotations.val == "deep/er/p_val.jsonl"


def test_what_cannot_be_used_is_left_out_of_the_files(data, capsys):
    (data / "my pictures" / "2.png").unlink()
    (data / "my pictures" / "3.png").write_text("no picture")
    rows = [*read("my.jsonl"), {"image": "4.png", "caption": ""}]
    write(data / "my.jsonl", [row if row["image"] != "5.png" else {**row, "caption": " "} for row in rows])
    assert run(*CAPTIONS) == 0
    out = capsys.readouterr().out
    assert "missing pictures: 1, e.g. 2.png" in out and "3.png (not a picture that PIL can read)" in out
    assert "empty captions: 2" in out
    used = {row["image"] for split in ("train", "val") for row in read(f"project_{split}.jsonl")}
    assert used == {f"{n}.png" for n in range(COUNT)} - {"2.png", "3.png", "5.png"}


def test_cocos_form_will_do(data):
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(COUNT)]
    annotations = [{"id": n, "image_id": n % COUNT, "caption": f"caption {n}"} for n in range(2 * COUNT)]
    Path("coco.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    assert run("--data", "coco.json", "--images", "my pictures") == 0
    assert sum(len(row["caption"]) for split in ("train", "val") for row in read(f"project_{split}.jsonl")) == 2 * COUNT


def test_names_of_models_make_a_custom_one(data):
    options = ("--vit", "facebook/dinov2-base", "--llm", "models/my llm", "--out", "custom.yaml")
    assert run(*CAPTIONS, *options) == 0
    config = OmegaConf.load("custom.yaml")
    assert (config.model.model_type, config.model.vit_model) == ("custom", "hf:facebook/dinov2-base")
    assert config.model.llm_model == "models/my llm" and "llm_end" not in config.model
    assert config.run.init_lr == 1e-4 and config.datasets.image_caption.vis_processor.eval.mean[0] == 0.485
    assert run(*CAPTIONS, "--vit", "hf:google/siglip-base", "--out", "siglip.yaml") == 0
    config = OmegaConf.load("siglip.yaml")
    assert config.datasets.image_caption.vis_processor.eval.mean[0] == 0.5
    assert config.model.llm_model == "embedded:smollm2-135m" and config.model.llm_end == "\n"


def test_the_pages_commands_are_ones_that_exist(data):
    parser, found = cli.build_parser(), commands()
    assert {line[0] for line in found} == {
        "new-project",
        "train",
        "caption",
        "answer",
        "evaluate",
        "report",
        "write-shards",
    }
    for line in found:
        args, rest = parser.parse_known_args(line)
        assert not rest or hasattr(args, "passes_on")
    (plain, *_) = [parser.parse_args(line) for line in found if line[0] == "new-project"]
    assert (plain.out, plain.val_share) == (Path("project.yaml"), 0.05)


REFUSED = {
    ("--data", "gone.jsonl", "--images", "my pictures"): "annotation file gone.jsonl does not exist",
    ("--data", "my.jsonl", "--images", "nowhere"): "--images nowhere: this folder does not exist",
    (*CAPTIONS, "--out", "there.yaml"): "--out there.yaml: this file exists; name another one, or add --overwrite",
    (*CAPTIONS, "--out", "p.json"): "--out p.json: the name must end in .yaml",
    (*CAPTIONS, "--val-share", "5"): "--val-share 5.0: must lie between 0 and 1",
    (*CAPTIONS, "--device", "tpu"): "--device tpu: is neither cpu nor cuda",
    (*CAPTIONS, "--questions"): "no key 'question'",
    (*CAPTIONS, "--val", "q.jsonl"): "--val q.jsonl: its rows are of another kind than those of my.jsonl",
    ("--data", "my.jsonl", "--images", "."): "no picture of my.jsonl can be used below .: looked for",
    ("--data", "one.jsonl", "--images", "my pictures"): "one.jsonl: 1 usable pictures are too few",
    ("--data", "v.jsonl", "--images", "my pictures"): "questions about clips cannot be trained on yet",
}


@pytest.mark.parametrize("argv", REFUSED, ids=lambda argv: argv[-1])
def test_what_does_not_fit_is_said(data, capsys, argv):
    Path("there.yaml").write_text("mine")
    write(Path("q.jsonl"), [{"image": "1.png", "question": "a?", "answer": "b"}])
    write(Path("v.jsonl"), [{"video": "1.mp4", "question": "a?", "answer": "b"}])
    write(Path("one.jsonl"), [{"image": "1.png", "caption": "alone"}])
    assert run(*argv) == 2
    assert REFUSED[argv] in capsys.readouterr().err
    assert Path("there.yaml").read_text() == "mine" and not Path("project.yaml").exists()


def test_overwriting_is_asked_for(data):
    assert run(*CAPTIONS) == 0 and run(*CAPTIONS) == 2 and run(*CAPTIONS, "--overwrite") == 0
    with pytest.raises(ConfigError, match="exists"):
        new_project.new_project(Path("my.jsonl"), Path("my pictures"))
    with pytest.raises(DataError, match="does not exist"):
        new_project.new_project(Path("my.jsonl"), Path("gone"), Path("x.yaml"))


names = st.lists(st.text("abcdef0123456789", min_size=1, max_size=8), min_size=3, unique=True)


@given(names, st.floats(0.01, 0.9), st.data())
def test_splits_are_whole_disjoint_and_stable(files, share, data):
    copies = data.draw(st.lists(st.sampled_from(files), max_size=3, unique=True))
    assume(len(copies) < len(files))
    same = [copies] if len(copies) > 1 else []
    train, val = split_files(files, share, same)
    assert sorted([*train, *val]) == sorted(files) and train and val
    assert not same or set(copies) <= set(train) or set(copies) <= set(val)
    assert split_files(files, share, same) == (train, val)
    assert {*split_files(files[::-1], share, same)[1]} == {*val}


def test_few_pictures_change_sides_when_others_join_them():
    files = [f"{n}.jpg" for n in range(1000)]
    before, after = set(split_files(files[:900], 0.1)[1]), set(split_files(files, 0.1)[1])
    assert len(before) == 90 and len(after) == 100 and len(before & after) >= 75


@pytest.mark.parametrize(("kind", "questions"), [("image", False), ("image", True), ("video", False)])
@pytest.mark.parametrize(("vit", "llm"), [(None, None), ("clip_L", "a b: c"), (None, "1e3"), ("hf:ö/x", "null")])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_kind_of_configuration_is_a_valid_one(tmp_path, kind, questions, vit, llm, device):
    sizes = {"items": 100_000, "pictures": 20_000} if device == "cuda" else {"items": 30, "pictures": 10}
    project = Project(
        "p", kind, questions, "yes", ["a, b.jsonl"], ["null", "x"], **sizes, longest=70, vit=vit, llm=llm, device=device
    )
    (tmp_path / "p.yaml").write_text(project.yaml("python"))
    config = read_config(str(tmp_path / "p.yaml"), [])
    check_config(config)
    assert config.model.get("vit_model") == (vit or (llm and "hf:embedded:dinov2-small"))
    section = config.datasets[project.builder]
    assert section.annotations == {"train": "a, b.jsonl", "val": ["null", "x"]}
    assert section["videos" if kind == "video" else "images"] == "yes"
    assert config.model.get("llm_model") == (llm if project.vit or llm else None)
    assert config.model.max_txt_len == 72 and config.run.max_iters == (20_000 if device == "cuda" else 200)
    assert ("feature_cache" in config.run) == (kind == "image" and device == "cpu")


@pytest.mark.slow  # the real embedded weights
def test_the_embedded_model_trains_offline_on_ones_own_pictures(data, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.chdir(data)
    assert run(*CAPTIONS) == 0
    options = [
        "run.max_iters=2",
        "run.iters_per_inner_epoch=2",
        "run.warmup_steps=1",
        "run.health_freq=2",
        "run.log_freq=1",
    ]
    metrics, log = train("project.yaml", options)
    assert metrics["val"]["captions"] == len(read("project_val.jsonl"))
    losses = [row["loss"] for row in log if "loss" in row]
    assert len(losses) == 2 and all(0 < loss < 8 for loss in losses)
    picture = str(data / "my pictures" / "3.png")
    capsys.readouterr()
    assert cli.main(["caption", "--checkpoint", "outputs/project/model.pth", "--device", "cpu", picture]) == 0
    assert capsys.readouterr().out.startswith(f"{picture}: ")

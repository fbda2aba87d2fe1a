"""The project files of VQA, and EVLGen's official ones, run from files in the official schema to a score."""

import json
import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from question_files import coco_pictures, gqa_file, gqa_pictures, vqa_files, write

from lavis_evlgen import launch
from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.configuration.read import read_config

PROJECTS = Path(__file__).parent.parent / "projects" / "evlgen"
GENERATION = {"max_len": 10, "min_len": 1, "num_beams": 5, "inference_method": "generate"}


def tiny_options(tiny_config, kind: str, dataset: str, splits: tuple[str, ...] = ("eval",)) -> list[str]:
    """Options that put a tiny model and a laptop in the place of the project's."""
    tiny = tiny_config(kind)
    named = {key: value for key, value in tiny.items() if not isinstance(value, dict)}
    named |= {f"{key}.{name}": value for key in ("vit_config", "connector_config") for name, value in tiny[key].items()}
    named |= {"bert_model": "null", "load_pretrained": "false"}
    options = [f"model.{key}={value}".replace(" ", "") for key, value in named.items()]
    return [
        *options,
        *(f"datasets.{dataset}.vis_processor.{split}.image_size=56" for split in splits),
        *("run.device=cpu", "run.precision=fp32", "run.num_workers=0", "run.batch_size_eval=2", "run.max_len=4"),
    ]


def miniature(tmp_path: Path, dataset: str) -> dict[str, str]:
    """The data set's official files, and the options that say where they are."""
    files = {}
    if dataset == "gqa":
        images = gqa_pictures(tmp_path / "images")
        files["testdev"] = [gqa_file(tmp_path)]
    else:
        images = coco_pictures(tmp_path / "images")
        prefix = "v2_" if dataset == "vqav2" else ""
        files["test" if dataset == "ok_vqa" else "val"] = vqa_files(tmp_path, prefix=prefix)
    if dataset == "vqav2":
        coco_pictures(images, "train2014")
        coco_pictures(images, "test2015")
        files["train"] = vqa_files(tmp_path, "train2014")
        files["test_dev"] = vqa_files(tmp_path, "test-dev2015")
    return {
        f"datasets.{dataset}.build_info.images.storage": str(images),
        **{
            f"datasets.{dataset}.build_info.annotations.{split}.storage": f"[{','.join(map(str, paths))}]"
            for split, paths in files.items()
        },
    }


@pytest.mark.parametrize("kind", ["opt", "vicuna"])
@pytest.mark.parametrize(("name", "dataset"), [("vqav2", "vqav2"), ("gqa", "gqa"), ("okvqa", "ok_vqa")])
def test_zero_shot_projects(tmp_path, tiny_config, monkeypatch, kind, name, dataset):
    path = PROJECTS / f"{name}_zeroshot_{kind}_eval.yaml"
    run = OmegaConf.load(path).run
    assert {key: run[key] for key in GENERATION} == GENERATION
    assert run.prompt == "Question: {} Short answer:" and run.length_penalty == 0
    assert OmegaConf.load(path).model.get("apply_lemmatizer", False) == (dataset == "ok_vqa")

    monkeypatch.chdir(tmp_path)
    places = miniature(tmp_path, dataset)
    (split,) = run.test_splits
    used = [f"{key}={value}" for key, value in places.items() if ".annotations." not in key or f".{split}." in key]
    options = [*tiny_options(tiny_config, kind, dataset), *used]
    metrics = launch.start(["--cfg-path", str(path), "--options", *options], evaluate=True)[split]
    assert metrics["questions"] == (2 if dataset == "gqa" else 3) and metrics["skipped"] == 0
    assert metrics["agg_metrics"] == metrics["accuracy"] and 0 <= metrics["accuracy"] <= 100
    assert metrics["scoring"] == ("gqa" if dataset == "gqa" else "vqa")
    (folder,) = (tmp_path / run.output_dir).iterdir()
    answers = json.loads((folder / "result" / f"{split}_epochbest.json").read_text())
    submission = json.loads((folder / "result" / f"{split}_epochbest_submission.json").read_text())
    assert len(answers) == len(submission) == metrics["questions"]
    keys = ("questionId", "prediction") if dataset == "gqa" else ("question_id", "answer")
    assert {tuple(row) for row in submission} == {keys}
    assert {type(row[keys[0]]) for row in submission} == {str if dataset == "gqa" else int}


def test_fine_tuning_project(tmp_path, tiny_config, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = PROJECTS / "vqav2_opt.yaml"
    places = [f"{key}={value}" for key, value in miniature(tmp_path, "vqav2").items()]
    length = [
        "run.max_epoch=null",
        "run.max_iters=2",
        "run.batch_size_train=2",
        "run.warmup_steps=1",
        "run.iters_per_inner_epoch=2",
    ]
    options = [*tiny_options(tiny_config, "opt", "vqav2", ("train", "eval")), *places, *length]
    metrics = launch.start(["--cfg-path", str(path), "--options", *options], evaluate=False)
    assert metrics["test_dev"] == {"agg_metrics": 0.0, "note": "no ground truth", "skipped": 0}
    folder = tmp_path / "outputs/evlgen/vqav2_opt"
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["questions"] for row in log if row.get("split") == "val"] == [3]
    submitted = json.loads((folder / "result/test_dev_epochbest_submission.json").read_text())
    assert [row["question_id"] for row in submitted] == [262148000, 393225001, 42002]
    assert any(key.startswith("connector.") for key in torch.load(folder / "model.pth", weights_only=True)["model"])


def test_the_documented_file_trains_on_ones_own_questions(tmp_path, tiny_config, monkeypatch):
    """The yaml and the row of docs/questions.md, with a tiny model in the place of the embedded one."""
    text = (PROJECTS.parent.parent / "docs/questions.md").read_text()
    config = OmegaConf.to_container(OmegaConf.create(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]))
    row = json.loads(re.search(r"`(\{\"image\".*?\})`", text)[1])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / "pictures" / row["image"])
    for name in ("train", "val"):
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * 2)
    processor = {"name": "blip_image_eval", "image_size": 56}
    config["datasets"]["visual_question_answer"]["vis_processor"] = {"train": processor, "eval": processor}
    # the tiny tokenizer has no token for the end of a line
    tiny = {"merged_skip": False, "num_layers": None, "connector_lr_scale": 1, "llm_end": None}
    config["model"] |= {**tiny_config("any"), **tiny}
    config["run"] |= {"max_iters": 2, "batch_size_train": 2, "output_dir": "out"}
    OmegaConf.save(OmegaConf.create(config), tmp_path / "my.yaml")
    metrics = launch.start(["--cfg-path", "my.yaml"], evaluate=False)
    assert metrics["val"]["questions"] == 2 and metrics["val"]["scoring"] == "match"


# the keys and values of EVLGen's official evaluation files, but for paths on their authors' machines
OFFICIAL_RUN = {
    "batch_size_train": 16,
    "batch_size_eval": 32,
    "num_workers": 4,
    **GENERATION,
    "prompt": "Question: {} Short answer:",
    "seed": 42,
    "evaluate": True,
    "device": "cuda",
    "world_size": 1,
    "dist_url": "env://",
    "distributed": True,
}
OPT = {"arch": "liptome_opt", "model_type": "pretrain_opt2.7b", "load_pretrained": True, "pretrained": "", "tome_r": 19}
VICUNA = {
    "arch": "liptome_vicuna",
    "model_type": "pretrain_vicuna7b",
    "load_pretrained": True,
    "load_finetuned": False,
    "vit_model": "clip_L",
    "pretrained": "",
    "image_size": 224,
    "drop_path_rate": 0,
    "use_grad_checkpoint": False,
    "vit_precision": "fp16",
    "freeze_vit": True,
    "tome_r": 19,
    "llm_model": "vicuna-7b-v1.3",
    "prompt": "",
    "max_txt_len": 32,
    "max_output_txt_len": 32,
}
OFFICIAL = {
    "gqa": (OPT, "gqa", {"type": "balanced_testdev"}, {"task": "gqa", "test_splits": ["val"]}),
    "okvqa": ({**OPT, "apply_lemmatizer": True}, "ok_vqa", {}, {"task": "vqa", "test_splits": ["test"]}),
    "vqav2": (VICUNA, "coco_vqa", {"type": "eval"}, {"task": "vqa", "test_splits": ["val"]}),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files(tmp_path, tiny_config, monkeypatch, name):
    """As they are, with the official data where LAVIS keeps it, but for a model that a test can run."""
    model, dataset, kind, run = OFFICIAL[name]
    processors = {
        "vis_processor": {"eval": {"name": "blip_image_eval", "image_size": 224}},
        "text_processor": {"eval": {"name": "blip_question"}},
    }
    config = {"model": model, "datasets": {dataset: {**kind, **processors}}, "run": {**OFFICIAL_RUN, **run}}
    config["run"]["output_dir"] = "output/EVLGen"
    OmegaConf.save(OmegaConf.create(config), tmp_path / "official.yaml")
    check_config(read_config(str(tmp_path / "official.yaml"), []))

    monkeypatch.chdir(tmp_path)
    # the splits that are not asked for lie there too, as LAVIS would fetch them
    if name == "gqa":
        gqa_pictures(tmp_path / "gqa/images")
        for split in ("train", "testdev", "test"):
            gqa_file(tmp_path / "gqa/annotations", f"{split}_balanced_questions.json", split != "test")
    else:
        folder = tmp_path / ("okvqa" if name == "okvqa" else "coco") / "annotations"
        for split in ("train2014", "val2014"):
            coco_pictures(tmp_path / "coco/images", split)
            vqa_files(folder, split, prefix="" if name == "okvqa" else "v2_")
        picture = "val2014/COCO_val2014_000000262148.jpg"
        write(folder / "vqa_test.json", [{"question_id": 1, "question": "What?", "image": picture, "dataset": "vqa"}])
    options = tiny_options(tiny_config, "vicuna" if model is VICUNA else "opt", dataset)
    metrics = launch.start(["--cfg-path", "official.yaml", "--options", *options], evaluate=True)
    (split,) = run["test_splits"]
    assert metrics[split]["questions"] == (2 if name == "gqa" else 3)

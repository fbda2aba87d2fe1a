"""The ELIP projects: the authors' figures stand in them, and all run at tiny size from files in LAVIS's schemas."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from elip_tiny import CAPTIONS, IMAGE_SIZE, build, tiny_keys
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image
from question_files import coco_pictures, vqa_files, write
from test_stock_runners import gloo  # noqa: F401  a fixture
from transformers import CLIPConfig, CLIPModel, CLIPProcessor

from lavis_evlgen import launch, load_model_and_preprocess
from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.embedded import pictures
from lavis_evlgen.errors import ConfigError

ROOT = Path(__file__).parent.parent
PROJECTS = ROOT / "projects" / "elip"
DOCS = (ROOT / "docs" / "elip.md").read_text()
MODEL_TYPES = sorted((ROOT / "configs" / "models").glob("elip_*.yaml"))
ANSWERS = ["yes", "no", "red", "blue"]


def test_pretraining_follows_the_authors():
    for family, size, queue, epochs in (("albef", 256, 65536, 20), ("blip", 224, 57600, 15)):
        project = OmegaConf.load(PROJECTS / f"pretrain_{family}.yaml")
        model = OmegaConf.load(ROOT / f"configs/models/elip_{family}_pretrain_base.yaml").model
        assert (model.image_size, model.queue_size, model.momentum, model.alpha) == (size, queue, 0.995, 0.4)
        assert (list(model.elip_positions), list(model.elip_keep)) == ([2, 4, 10], [0.9, 0.65, 0.4])
        assert (model.elip_lambda, model.elip_lookahead, model.elip_training) == (0.8, "official", True)
        assert (project.run.init_lr, project.run.max_epoch) == (1e-4, epochs)
        assert set(project.datasets) == {"coco_caption", "vg_caption", "conceptual_caption_3m", "sbu_caption"}
        sizes = {data.vis_processor.train.image_size for data in project.datasets.values()}
        assert sizes == {size} and "--nproc_per_node=4" in (PROJECTS / f"pretrain_{family}.yaml").read_text()


@pytest.mark.parametrize("path", MODEL_TYPES, ids=lambda path: path.stem)
def test_model_types_are_built(path, tmp_path, capsys):
    """As they are, but for the sizes of their parts and the weights that they would download."""
    config = OmegaConf.load(path).model
    family = config.arch.split("_")[1]
    tiny = tiny_keys(tmp_path, family)
    classes = {"num_classes": config.num_classes} if "num_classes" in config else {}
    model_type = path.stem.removeprefix(f"{config.arch}_")
    model, images, texts = load_model_and_preprocess(config.arch, model_type, **{**tiny, **classes})
    capsys.readouterr()
    assert model.elip_training == path.stem.endswith("pretrain_base") and not model.elip_inference
    assert not model.training and set(images) == set(texts) == {"train", "eval"}
    sections = {"datasets": {}, "run": {"task": "retrieval"}}
    check_config(OmegaConf.create({"model": {"model_type": model_type, **config}, **sections}))


def test_misspelled_keys_are_found():
    config = OmegaConf.load(PROJECTS / "pretrain_blip.yaml")
    config.model.elip_lookahaed = 1
    with pytest.raises(ConfigError, match="model.elip_lookahaed is unknown; did you mean 'elip_lookahead'"):
        check_config(config)
    config = OmegaConf.load(PROJECTS / "pretrain_blip.yaml")
    config.model.vit_config = {"embed_dim": 24}
    config.model.queue_sise = 1
    with pytest.raises(ConfigError, match="model.queue_sise is unknown; did you mean 'queue_size'"):
        check_config(config)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Six pictures, and annotation files as LAVIS's data sets have them."""
    folder = tmp_path_factory.mktemp("data")
    names = [f"COCO_val2014_{number:012d}.jpg" for number in range(6)]
    for number, name in enumerate(names):
        Image.new("RGB", (70, 66), (40 * number, 255 - 40 * number, 128)).save(folder / name)
    texts = [CAPTIONS[number % 4] for number in range(6)]
    labels = ["contradiction", "neutral", "entailment"]
    rows = {
        "pairs": [
            {"image": n, "caption": t, "image_id": f"i{k}"} for k, (n, t) in enumerate(zip(names, texts, strict=True))
        ],
        "groups": [{"image": n, "caption": [t, "a picture"]} for n, t in zip(names, texts, strict=True)],
        "nlvr": [{"images": [n, names[0]], "sentence": t, "label": "True"} for n, t in zip(names, texts, strict=True)],
        "snli": [
            {"image": Path(n).stem, "sentence": t, "label": labels[k % 3]}
            for k, (n, t) in enumerate(zip(names, texts, strict=True))
        ],
        "vqa": [
            {"image": n, "question": "what colour is it", "question_id": k, "answer": [ANSWERS[k % 4]] * 9 + ["no"]}
            for k, n in enumerate(names)
        ],
        "vg": [{"image": n, "question": "what is it", "answer": "a tree"} for n in names],
    }
    for name, content in rows.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def storage(files, dataset, **splits):
    """Options that say where the files of a data set are."""
    key = f"datasets.{dataset}.build_info"
    lists = dataset in ("conceptual_caption_3m", "sbu_caption")
    return [
        f"{key}.images.storage={files}",
        *(
            f"{key}.annotations.{split}.storage={f'[{files}/{name}.json]' if lists else f'{files}/{name}.json'}"
            for split, name in splits.items()
        ),
    ]


def tiny_model(project, folder):
    """The tiny keys that the project's model has."""
    cls = registry.get_model_class(project.model.arch)
    known = {*OmegaConf.load(cls.default_config_path(project.model.model_type)).model, *cls.EXTRA_CONFIG_KEYS}
    keys = tiny_keys(folder, project.model.arch.split("_")[1])
    return {key: value for key, value in keys.items() if key in known}


def run(name, folder, monkeypatch, options, evaluate=False, **model):
    """A project at tiny size: two steps of four pictures."""
    project = OmegaConf.load(PROJECTS / name)
    config = OmegaConf.merge(project, {"model": {**tiny_model(project, folder), **model}})
    for data in config.datasets.values():
        for processor in data.vis_processor.values():
            processor.image_size = IMAGE_SIZE
    config.run |= {"device": "cpu", "num_workers": 0, "batch_size_eval": 2}
    if not evaluate:
        config.run |= {"max_epoch": 0, "max_iters": 2, "iters_per_inner_epoch": 2, "batch_size_train": 4}
    OmegaConf.save(config, folder / "run.yaml")
    monkeypatch.chdir(folder)
    return launch.start(["--cfg-path", "run.yaml", "--options", *options], evaluate=evaluate)


def losses(folder, name):
    lines = (folder / "outputs" / name / "log.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


@pytest.mark.parametrize("family", ["albef", "blip"])
def test_pretraining_then_retrieval(files, tmp_path, monkeypatch, family):
    four = ("coco_caption", "vg_caption", "conceptual_caption_3m", "sbu_caption")
    places = [place for dataset in four for place in storage(files, dataset, train="pairs")]
    places += storage(files, "coco_caption", val="groups", test="groups")
    run(f"pretrain_{family}.yaml", tmp_path, monkeypatch, [*places, "run.log_freq=1"])
    assert all(torch.isfinite(torch.tensor(losses(tmp_path, f"elip/pretrain_{family}"))))
    weights = tmp_path / f"outputs/elip/pretrain_{family}/model.pth"
    state = torch.load(weights, weights_only=True)["model"]
    assert state["queue_ptr"].item() == 0 and state["image_queue"].shape == (16, 8)  # two batches of four

    places = storage(files, "flickr30k", train="pairs", val="groups", test="groups")
    metrics = run(
        f"retrieval_flickr_{family}.yaml", tmp_path, monkeypatch, [*places, "run.k_test=4"],
        pretrained=str(weights), elip_inference=True, elip_training=True,
    )  # fmt: skip
    assert set(metrics) == {"val", "test"} and 0 <= metrics["test"]["r_mean"] <= 100
    tuned = torch.load(tmp_path / f"outputs/elip/retrieval_flickr_{family}/model.pth", weights_only=True)["model"]
    assert tuned["idx_queue"].shape == (1, 8)


def test_vqa_project(files, tmp_path, monkeypatch):
    places = storage(files, "coco_vqa", train="vqa") + storage(files, "vg_vqa", train="vg")
    # the official test split has no answers; its place is taken by files with some
    run(
        "vqav2_albef.yaml", tmp_path, monkeypatch, [*places, "run.test_splits=[]", "run.log_freq=1"], elip_training=True
    )
    assert len(losses(tmp_path, "elip/vqav2_albef")) == 2


@pytest.mark.parametrize("family", ["albef", "blip"])
def test_vqa_evaluation_project(tmp_path, monkeypatch, family):
    images = coco_pictures(tmp_path / "images")
    answers = write(tmp_path / "answers.json", ["no", "2", "black and white", "yes"])
    questions = ",".join(map(str, vqa_files(tmp_path)))
    options = [
        f"datasets.coco_vqa.build_info.images.storage={images}",
        f"datasets.coco_vqa.build_info.annotations.val.storage=[{questions}]",
        f"run.answer_list={answers}",
    ]
    metrics = run(f"vqav2_{family}_eval.yaml", tmp_path, monkeypatch, options, evaluate=True, elip_inference=True)
    assert metrics["val"]["questions"] == 3 and 0 <= metrics["val"]["accuracy"] <= 100


@pytest.mark.parametrize(
    ("name", "dataset", "rows"),
    [("nlvr_albef", "nlvr", "nlvr"), ("nlvr_blip", "nlvr", "nlvr"), ("snli_ve_albef", "snli_ve", "snli")],
)
def test_classification_projects(files, tmp_path, monkeypatch, name, dataset, rows):
    places = storage(files, dataset, train=rows, val=rows, test=rows)
    classes = {"num_classes": 2 if dataset == "nlvr" else 3}
    metrics = run(f"{name}.yaml", tmp_path, monkeypatch, places, elip_training=True, elip_inference=True, **classes)
    assert 0 <= metrics["test"]["acc"] <= 1


@pytest.mark.parametrize("reduced", [False, True])
def test_evaluation_project(files, tmp_path, monkeypatch, reduced):
    places = storage(files, "coco_retrieval", train="pairs", val="groups", test="groups")
    metrics = run(
        "retrieval_coco_albef_eval.yaml", tmp_path, monkeypatch, [*places, "run.k_test=3"],
        evaluate=True, elip_inference=reduced,
    )  # fmt: skip
    assert 0 <= metrics["test"]["img_r10"] <= 100


def test_lavis_own_runner_pretrains_and_loads(files, tmp_path, monkeypatch, gloo):  # noqa: F811
    config = OmegaConf.load(PROJECTS / "pretrain_blip.yaml")
    config.model |= tiny_model(config, tmp_path)
    config.datasets = {"vg_caption": config.datasets.vg_caption}
    config.datasets.vg_caption.vis_processor.train.image_size = IMAGE_SIZE
    config.run |= {"runner": "runner_base", "max_epoch": 1, "batch_size_train": 3, "num_workers": 0, "device": "cpu"}
    config.run.output_dir = str(tmp_path / "out")
    OmegaConf.save(config, tmp_path / "stock.yaml")
    monkeypatch.chdir(tmp_path)
    options = storage(files, "vg_caption", train="pairs")
    launch.start(["--cfg-path", "stock.yaml", "--stock-runner", "--options", *options], evaluate=False)
    (folder,) = (tmp_path / "out").iterdir()
    saved = torch.load(folder / "checkpoint_0.pth", weights_only=True)["model"]
    model = build("elip_blip_pretrain", tiny_keys(tmp_path, "blip"))
    model.load_state_dict(saved, strict=False)
    assert set(saved) <= set(model.state_dict()) and saved["queue_ptr"].item() == 6 % 8


def test_the_documentation_names_every_key():
    rows = re.findall(r"^\| `(\w+)` \|", DOCS, re.MULTILINE)
    assert set(rows) - {"arch"} >= registry.get_model_class("elip_blip_vqa").EXTRA_CONFIG_KEYS
    named = set(re.findall(r"`(elip_\w+)`", DOCS))
    keys = registry.get_model_class("elip_blip_vqa").EXTRA_CONFIG_KEYS | {"elip_clip"}
    assert all(name in keys or registry.get_model_class(name) for name in named)
    for path in re.findall(r"(?:projects|tests)/[\w./-]+\.(?:yaml|py|md)", DOCS):
        assert (ROOT / path).is_file()


def test_the_documented_code_runs(tmp_path, monkeypatch):
    """Both blocks, with tiny models in the place of downloaded ones."""
    retrieval, clip = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    keys = tiny_keys(tmp_path, "albef")
    call = 'load_model_and_preprocess("elip_albef_retrieval", "flickr", elip_inference=True)'
    assert call in retrieval
    names = {"pictures": torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE), "keys": keys}
    exec(retrieval.replace(call, call.replace("=True)", "=True, **keys)")), names)
    assert names["tokens"].shape == (1, 8, 24) and names["source"].target.shape == (1, 17)

    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 9,
    }
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 12, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 28, "patch_size": 7}
    config = CLIPConfig(text_config={**text, "eos_token_id": 8}, vision_config=vision, projection_dim=8)
    model = CLIPModel(config)
    monkeypatch.setattr(CLIPModel, "from_pretrained", lambda name: model)
    ids = {"input_ids": torch.tensor([[1, 2, 8], [1, 3, 8]])}
    processor = SimpleNamespace(tokenizer=lambda texts, **options: ids)
    monkeypatch.setattr(CLIPProcessor, "from_pretrained", lambda name: processor)
    names = {"captions": ["a", "b"], "pixels": torch.randn(2, 3, 28, 28)}
    exec(clip, names)
    assert torch.isfinite(names["loss"]) and names["guided"].source_map().num_out == 8


@pytest.mark.slow
@pytest.mark.parametrize("family", ["albef", "blip"])
def test_demo_pretraining_runs_from_embedded_weights(tmp_path, monkeypatch, family):
    monkeypatch.chdir(tmp_path)
    pictures.build("outputs/elip_demo/data", train=24, val=0, test=6, unseen=0, image_size=112)
    path = str(PROJECTS / f"pretrain_demo_{family}.yaml")
    options = ["run.max_iters=2", "run.batch_size_train=4", "run.log_freq=1"]
    launch.start(["--cfg-path", path, "--options", *options], evaluate=False)
    found = losses(tmp_path, f"elip_demo/{family}")
    assert found and torch.isfinite(torch.tensor(found)).all()

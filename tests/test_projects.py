"""Every shipped run configuration is valid, and an official file runs as it is."""

import json
import tarfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from lavis_evlgen import launch
from lavis_evlgen.comparison.plan import read_plan
from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.configuration.read import read_config

ROOT = Path(__file__).parent.parent
COMPARISONS = sorted(ROOT.glob("projects/blip2/*.yaml"))
PROJECTS = sorted(set(ROOT.glob("projects/**/*.yaml")) - set(COMPARISONS))


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_project_files(path):
    check_config(read_config(str(path), []))
    launched = path.read_text().splitlines()[0]
    assert (
        launched.startswith("# python -m torch.distributed.run")
        and f"projects/{path.parent.name}/{path.name}" in launched
    )
    script = next(word for word in launched.split() if word.startswith("lavis/"))
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.name)
def test_comparisons(path):
    plan = read_plan(str(path))
    for arm in plan.arms:
        for stage in arm.stages:
            check_config(stage.config)
    launched = path.read_text().splitlines()[0]
    assert launched.endswith(f"lavis_evlgen.cli compare --cfg-path projects/blip2/{path.name}")


def test_pretraining_follows_the_paper():
    """Total batch 1600, 5,000 steps of warm-up from 1e-6 to 1e-4, cosine to 1e-5, mixture 15:4:1, seed 42."""
    for path in ROOT.glob("projects/evlgen/pretrain_*.yaml"):
        run = OmegaConf.load(path).run
        assert 8 * run.batch_size_train * run.accum_grad_iters == 1600, path
        assert (run.warmup_lr, run.init_lr, run.min_lr, run.warmup_steps, run.weight_decay, run.seed) == (
            1e-6, 1e-4, 1e-5, 5000, 0.05, 42,
        )  # fmt: skip
        assert dict(run.train_dataset_ratios) == {"laion115M": 15, "ccs14M": 4, "coco_caption": 1}


# the keys and values of the official pretraining file, but for lengths that a test can wait for
OFFICIAL = """
model:
  arch: liptome_opt
  model_type: pretrain_opt2.7b
  load_pretrained: False
  load_finetuned: False
  freeze_vit: True
  pretrained: ""
  finetuned: ""
  num_layers: 3
  tome_r: 4
  alpha: 0.4
  beta: 0.0
datasets:
  laion115M:
    vis_processor: {train: {name: "blip2_image_train", image_size: 56}}
    text_processor: {train: {name: "blip_caption"}}
  ccs14M:
    vis_processor: {train: {name: "blip2_image_train", image_size: 56}}
    text_processor: {train: {name: "blip_caption"}}
  coco_caption:
    vis_processor:
      train: {name: "blip2_image_train", image_size: 56}
      eval: {name: "blip_image_eval", image_size: 56}
    text_processor: {train: {name: "blip_caption"}, eval: {name: "blip_caption"}}
run:
  train_dataset_ratios: {laion115M: 15, ccs14M: 4, coco_caption: 1}
  runner: runner_iter
  max_iters: 6
  iters_per_inner_epoch: 3
  task: captioning
  lr_sched: "linear_warmup_cosine_lr"
  init_lr: 1e-4
  min_lr: 1e-5
  warmup_lr: 1e-6
  weight_decay: 0.05
  batch_size_train: 2
  batch_size_eval: 2
  num_workers: 0
  warmup_steps: 2
  max_len: 6
  min_len: 2
  num_beams: 2
  seed: 42
  output_dir: "EVLGen/OPT_mscoco/pretrain_opt2.7b"
  amp: True
  resume_ckpt_path: null
  evaluate: False
  train_splits: ["train"]
  valid_splits: ["val"]
  device: "cuda"
  world_size: 1
  dist_url: "env://"
  distributed: True
"""


def test_an_official_file_runs(tmp_path, tiny_config, monkeypatch):
    pictures = tmp_path / "coco"
    for number in range(6):
        path = pictures / f"val2014/COCO_val2014_{number:012d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((60, 50), 80).convert("RGB").save(path)
    names = [f"val2014/COCO_val2014_{number:012d}.jpg" for number in range(6)]
    train = [{"image": name, "caption": f"picture {i}", "image_id": f"coco_{i}"} for i, name in enumerate(names)]
    val = [{"image": name, "caption": [f"picture {i}", "a picture"]} for i, name in enumerate(names[:3])]
    (tmp_path / "train.json").write_text(json.dumps(train))
    (tmp_path / "val.json").write_text(json.dumps(val))
    with tarfile.open(tmp_path / "00000.tar", "w") as shard:
        for number, name in enumerate(names):
            (tmp_path / f"{number}.json").write_text(json.dumps({"caption": f"picture {number}"}))
            shard.add(pictures / name, f"{number:05d}.jpg")
            shard.add(tmp_path / f"{number}.json", f"{number:05d}.json")
    (tmp_path / "official.yaml").write_text(OFFICIAL)
    tiny = tiny_config("opt")
    options = [
        *(f"model.vit_config.{key}={value}" for key, value in tiny["vit_config"].items()),
        *(f"model.connector_config.{key}={value}" for key, value in tiny["connector_config"].items()),
        *(f"model.{key}={tiny[key]}" for key in ("vit_model", "image_size", "opt_model")),
        "model.bert_model=null",
        f"datasets.laion115M.build_info.storage={tmp_path}/00000.tar",
        f"datasets.ccs14M.build_info.storage={tmp_path}/00000.tar",
        f"datasets.coco_caption.build_info.images.storage={pictures}",
        *(f"datasets.coco_caption.build_info.annotations.{s}.storage={tmp_path}/{f}.json" for s, f in
          (("train", "train"), ("val", "val"), ("test", "val"))),
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    metrics = launch.start(["--cfg-path", "official.yaml", "--options", *options], evaluate=False)
    assert metrics["val"]["captions"] == 3
    (folder,) = (tmp_path / "EVLGen/OPT_mscoco/pretrain_opt2.7b").iterdir()
    checkpoint = torch.load(folder / "checkpoint_6.pth", weights_only=True)
    assert checkpoint["iters"] == 6 and not any(
        name.startswith(("vision.", "language.")) for name in checkpoint["model"]
    )

"""The video project files, and an official one, run from clips to scores at tiny size."""

import json

import pytest
import torch
import video_files as video
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_evlgen import cli, launch

# the keys and values of the official MSR-VTT file, but for lengths that a test can wait for
OFFICIAL = """
model:
  arch: liptome_video_opt
  model_type: pretrain_opt2.7b
  load_pretrained: True
  load_finetuned: False
  freeze_vit: True
  vit_precision: fp32
  pretrained: ""
  finetuned: ""
  num_layers: 3
  tome_r: 4
  alpha: 0.4
  beta: 0.0
datasets:
  msrvtt_caption:
    vis_processor:
      train: {name: "alpro_video_train", n_frms: 4, image_size: 56}
      eval: {name: "alpro_video_eval", n_frms: 4, image_size: 56}
    text_processor: {train: {name: "blip_caption"}, eval: {name: "blip_caption"}}
run:
  runner: runner_iter
  max_iters: 4
  iters_per_inner_epoch: 2
  task: captioning
  lr_sched: "linear_warmup_cosine_lr"
  init_lr: 1e-5
  min_lr: 1e-6
  warmup_lr: 1e-8
  weight_decay: 0.05
  batch_size_train: 4
  batch_size_eval: 4
  num_workers: 0
  warmup_steps: 1
  max_len: 6
  min_len: 2
  num_beams: 2
  seed: 42
  output_dir: "output/EVLGen-Video/OPT_msrvtt_finetune"
  amp: True
  resume_ckpt_path: null
  evaluate: False
  train_splits: ["train"]
  valid_splits: ["val"]
  test_splits: ["test"]
  device: "cuda"
  world_size: 1
  dist_url: "env://"
  distributed: True
"""


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A working directory with six clips, and annotations in LAVIS's form; WebVid's in its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("msrvtt", "msvd", "webvid_2m"):
        (tmp_path / name / "annotations").mkdir(parents=True)
        (tmp_path / name / "videos/page").mkdir(parents=True)
        for number in range(6):
            clip = f"page/{number}.mp4" if name == "webvid_2m" else f"video{number}.mp4"
            video.write_clip(tmp_path / name / "videos" / clip, 1 + 4 * number)
        for split, numbers in (("train", range(4)), ("val", (4, 5)), ("test", (5, 4))):
            rows = [
                {"video": f"video{n}.mp4", "image_id": f"video{n}", "caption": f"clip {n} {word}"}
                for n in numbers
                for word in (("runs", "ends") if split == "train" else ("runs",))
            ]
            rows = rows if split == "train" else [{**row, "caption": [row["caption"], "a clip"]} for row in rows]
            (tmp_path / name / f"annotations/cap_{split}.json").write_text(json.dumps(rows))
    lines = ["videoid,contentUrl,duration,page_dir,name", *(f"{n},x,PT1S,page,clip {n} runs" for n in range(6))]
    (tmp_path / "webvid_2m/annotations/results_2M_train.csv").write_text("\n".join(lines) + "\n")
    paths = dict(registry.mapping["paths"])
    yield tmp_path
    registry.mapping["paths"] = paths
    torch.set_num_threads(1)


def tiny_options(tiny_config, kind="video_opt"):
    tiny = tiny_config(kind)
    return [
        *(f"model.vit_config.{key}={value}" for key, value in tiny["vit_config"].items()),
        *(f"model.connector_config.{key}={value}" for key, value in tiny["connector_config"].items()),
        *(f"model.{key}={tiny[key]}" for key in tiny if key in ("vit_model", "image_size", "opt_model", "llm_model")),
        "model.bert_model=null",
    ]


def test_an_official_file_runs(workplace, tiny_config, parity_dir, capsys):
    """With the official image checkpoint, as the authors started; what it made captions clips on the command line."""
    (workplace / "official.yaml").write_text(OFFICIAL)
    options = [*tiny_options(tiny_config), f"model.pretrained={parity_dir.absolute() / 'liptome_opt.pth'}"]
    options.append("run.max_bad_share=1.0")  # LAVIS's clip processor finds no frame in the clip that has one
    metrics = launch.start(["--cfg-path", "official.yaml", "--options", *options], evaluate=False)
    assert metrics["val"]["captions"] == metrics["test"]["captions"] == 2
    (folder,) = (workplace / "output/EVLGen-Video/OPT_msrvtt_finetune").iterdir()
    saved = torch.load(folder / "checkpoint_4.pth", weights_only=True)["model"]
    assert saved["temporal.blocks.0.alpha"] != 0  # has trained
    assert not any(name.startswith(("vision.", "language.")) for name in saved)
    capsys.readouterr()
    files = ["msrvtt/videos/video3.mp4", "msrvtt/videos/video9.mp4"]
    assert cli.main(["caption", "--checkpoint", str(folder / "checkpoint_4.pth"), "--device", "cpu", *files]) == 1
    captioned, missing = capsys.readouterr().out.splitlines()
    assert captioned.startswith(f"{files[0]}: ") and not captioned.startswith(f"{files[0]}: error")
    assert missing == f"{files[1]}: error: no such file"


FILES = [
    "caption_msrvtt_opt",
    "caption_msrvtt_opt_concat",
    "caption_msrvtt_opt_mean",
    "caption_msrvtt_opt_scst",
    "caption_msvd_opt",
    "pretrain_webvid_opt2.7b",
    "caption_msrvtt_opt_eval",
    "caption_msvd_opt_eval",
    "msrvtt_zeroshot_opt_eval",
    "msrvtt_zeroshot_vicuna_eval",
    "msvd_zeroshot_opt_eval",
    "msvd_zeroshot_vicuna_eval",
]


@pytest.mark.parametrize("name", FILES)
def test_project_files_run(workplace, tiny_config, request, name):
    """Three steps of training from an image model's weights, or evaluation of a video model's or an image model's."""
    path = request.config.rootpath / "projects/evlgen_video" / f"{name}.yaml"
    config = OmegaConf.load(path)
    (data,) = config.datasets
    kind = "video" if "vicuna" in name else "video_opt"
    options = [*tiny_options(tiny_config, kind), "model.num_layers=2", "model.tome_r=4"]
    if not config.run.evaluate or "zeroshot" in name:
        kind = "vicuna" if kind == "video" else "opt"  # an image model's weights
    torch.save({"model": weights_of(tiny_config, kind)}, workplace / "start.pth")
    options += [f"model.pretrained={workplace / 'start.pth'}"]
    options += [f"datasets.{data}.vis_processor.{split}.image_size=56" for split in config.datasets[data].vis_processor]
    options += ["run.max_len=5", "run.min_len=1", "run.num_beams=2", "run.num_workers=0", "run.health_freq=0"]
    if not config.run.evaluate:
        options += ["run.max_iters=3", "run.iters_per_inner_epoch=3", "run.batch_size_train=2", "run.warmup_steps=1"]
    metrics = launch.start(["--cfg-path", str(path), "--options", *options], evaluate=config.run.evaluate)
    splits = [*config.run.get("valid_splits", []), *config.run.get("test_splits", [])]
    assert {split: found["captions"] for split, found in metrics.items()} == dict.fromkeys(splits, 2)
    log = workplace / config.run.output_dir / "log.jsonl"
    if not config.run.evaluate:
        assert torch.load(log.with_name("checkpoint_3.pth"), weights_only=True)["iters"] == 3


def weights_of(tiny_config, kind):
    torch.manual_seed(0)
    name = "evlgen_video" if kind.startswith("video") else f"evlgen_{kind}"
    config = tiny_config(kind, num_layers=2, tome_r=4)
    return registry.get_model_class(name).from_config(OmegaConf.create(config)).trainable_state_dict()

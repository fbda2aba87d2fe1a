"""A small training from beginning to end, through the real launcher: steps, checkpoint, resume, export."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_evlgen.doctor.findings import OK, PROBLEM, Result

_STEPS, _HALF = 6, 3
_FALL = 0.02  # of the loss that it loses at least; it is 0.05 in these steps
_COLOURS = {"red": (220, 50, 40), "green": (60, 170, 70), "blue": (50, 90, 220)}
_WORDS = ["[UNK]", "[PAD]", "</s>", "a", "picture", *_COLOURS]


def check_training() -> Iterator[Result]:
    """Six steps of a tiny model, then the last three again from the checkpoint: the losses must be the same."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        config = write_run(Path(folder))
        out = Path(folder, "out")
        first = _train(config, out)
        for name in ("model.pth", f"checkpoint_{_STEPS}.pth"):
            (out / name).unlink()
        checkpoint = out / f"checkpoint_{_HALF}.pth"
        before = checkpoint.stat().st_mtime_ns
        resumed = _train(config, out)[-(_STEPS - _HALF) :]
        went_on = checkpoint.stat().st_mtime_ns == before and (out / "model.pth").is_file()
    seconds = time.monotonic() - start
    losses = " ".join(f"{loss:.3f}" for loss in first)
    way_out = "the findings above say what is broken; if nothing is, this is a defect of lavis_evlgen: please report it"
    if len(first) != _STEPS or not all(map(math.isfinite, first)):
        yield PROBLEM, f"a tiny model does not train (losses: {losses or 'none'})", way_out
    elif first[-1] > (1 - _FALL) * first[0]:
        yield PROBLEM, f"a tiny model does not learn (losses: {losses})", way_out
    elif resumed != first[_HALF:] or not went_on:
        again = " ".join(f"{loss:.3f}" for loss in resumed)
        yield PROBLEM, f"a resumed run goes another way: {losses}, then from step {_HALF + 1} {again}", way_out
    else:
        yield OK, f"a tiny model trained and resumed to the last bit in {seconds:.1f} s (losses: {losses})"


def write_run(folder: Path) -> Path:
    """The configuration of the run into a folder, with its pictures and its language model; the path of the yaml."""
    from omegaconf import OmegaConf
    from PIL import Image

    rows = []
    for number in range(12):
        name, colour = list(_COLOURS.items())[number % 3]
        Image.new("RGB", (28, 28), colour).save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": f"a {name} picture"})
    (folder / "train.json").write_text(json.dumps(rows))
    _write_language_model(folder / "llm")
    path = folder / "train.yaml"
    OmegaConf.save(OmegaConf.create(_config(folder)), path)
    return path


def _config(folder: Path) -> dict[str, Any]:
    vit = {"patch_size": 14, "embed_dim": 32, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0, "qkv_bias": True}
    bert = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    bert |= {"max_position_embeddings": 8, "vocab_size": 8}
    return {
        "model": {
            "arch": "evlgen",
            "model_type": "custom",
            "vit_model": "eva_vit",
            "vit_config": vit,
            "image_size": 28,
            "vit_precision": "fp32",
            "bert_model": None,
            "connector_config": bert,
            "tome_r": 1,
            "llm_model": str(folder / "llm"),
            "llm_precision": "fp32",
        },
        "datasets": {
            "image_caption": {
                "images": str(folder),
                "annotations": {"train": str(folder / "train.json")},
                "vis_processor": {"train": {"name": "blip_image_eval", "image_size": 28}},
            }
        },
        "run": {
            "task": "captioning",
            "max_iters": _STEPS,
            "iters_per_inner_epoch": _HALF,
            "batch_size_train": 4,
            "init_lr": 1e-2,
            "log_freq": 1,
            "keep_checkpoints": 2,
            "auto_resume": True,
            "device": "cpu",
            "num_threads": 1,
            "output_dir": str(folder / "out"),
        },
    }


def _write_language_model(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "bos_token": "</s>", "eos_token": "</s>"}
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    llama: Any = LlamaForCausalLM(LlamaConfig(vocab_size=len(_WORDS), max_position_embeddings=64, **size))
    llama.save_pretrained(folder)


def _train(config: Path, out: Path) -> list[float]:
    """Losses of the steps in the output folder's log after this run."""
    from lavis_evlgen import launch

    launch.start(["--cfg-path", str(config)], evaluate=False)
    rows = map(json.loads, (out / "log.jsonl").read_text("utf-8").splitlines())
    return [row["loss"] for row in rows if "grad_norm" in row]

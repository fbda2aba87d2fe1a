"""The figures of a run: what report.json holds."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from lavis_evlgen.reports.run_files import RunFiles
from lavis_evlgen.versions import versions

# what a reader wants to know of a configuration, in this order
CONFIG_KEYS = {
    "model": (
        "arch model_type vit_model image_size connector num_layers tome_r merge merged_skip connector_lr_scale "
        "bert_model opt_model llm_model prompt"
    ),
    "run": (
        "init_lr min_lr warmup_steps lr_sched weight_decay max_grad_norm max_iters batch_size_train accum_grad_iters "
        "world_size precision num_threads num_beams max_len seed"
    ),
}
# the names of the scores in report.json, which is there even where a run has no such score
HEADLINE = {"cider": "CIDEr", "exact_match": "exact_match", "named_right": "named_right", "accuracy": "accuracy"}
UNSEEN = {"named_right": "named_right", "accuracy": "accuracy"}


def figures(run: RunFiles, model: torch.nn.Module, command: str | None = None) -> dict[str, Any]:
    """Everything that is known of a run in numbers, ready for JSON; None where the run did not measure it.

    Scores of the known split stand at the top level, those of the unseen one with `_unseen`, those of all splits
    under `splits`. Losses are nats a token on held-out pictures; times are seconds.
    """
    seconds, steps = run.train_seconds, run.steps
    return {
        **_scores(run),
        "held_out_loss": run.last("held_out_loss"),
        "shuffled_loss": run.last("shuffled_loss"),
        "steps": steps,
        "train_seconds": seconds,
        "seconds_per_step": round(seconds / steps, 4) if seconds and steps else None,
        "feature_seconds": run.last("feature_seconds"),
        "images_seen": steps * run.images_per_step,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "tokens_in": getattr(getattr(model, "vision", None), "num_tokens", None),
        "tokens_out": getattr(getattr(model, "connector", None), "num_tokens_out", None),
        "known_split": run.known_split,
        "unseen_split": run.unseen_split,
        "splits": run.scores,
        **origin(run, command),
    }


def origin(run: RunFiles, command: str | None) -> dict[str, Any]:
    """Where figures come from: the command, what the configuration says, versions, machine and the report's date."""
    return {
        "command": command,
        "config": {key: value for part in CONFIG_KEYS for key, value in chosen(run, part).items()},
        "versions": versions(),
        "machine": machine(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _scores(run: RunFiles) -> dict[str, float | None]:
    known = run.scores[run.known_split]
    unseen = run.scores[run.unseen_split] if run.unseen_split else {}
    names = HEADLINE | {name: name for name in known if name.endswith("_right")}
    found = {ours: known.get(name) for ours, name in names.items()}
    names = UNSEEN | {name: name for name in unseen if name.endswith("_right")}
    return found | {f"{ours}_unseen": unseen.get(name) for ours, name in names.items()}


def chosen(run: RunFiles, part: str) -> dict[str, Any]:
    values = OmegaConf.to_container(run.config[part], resolve=True)
    assert isinstance(values, dict)
    return {key: values[key] for key in CONFIG_KEYS[part].split() if values.get(key) not in (None, "")}


def machine() -> dict[str, Any]:
    """Where the report was written, by default the machine of the run."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    system = f"{platform.system()} {platform.machine()}"
    return {"cores": usable, "processor": _processor(), "gpu": gpu, "system": system}


def _processor() -> str:
    """The processor's name; Linux alone says it in full."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor()

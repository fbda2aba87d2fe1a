"""Running out of memory: one error that names what the configuration at hand can lower."""

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lavis.common.registry import registry
from omegaconf import DictConfig, OmegaConf

from lavis_evlgen.errors import EvlgenError, first_line
from lavis_evlgen.runners.activity import ACTIVITY
from lavis_evlgen.runners.settings import RunSettings

SHORT_TEXT = 32  # tokens; LAVIS's and our default
_MESSAGES = re.compile(r"DefaultCPUAllocator|not enough memory|can't allocate memory|ALLOC_FAILED|out of memory", re.I)


class OutOfMemory(EvlgenError, MemoryError):
    """The processor's or the GPU's memory does not suffice."""


@contextmanager
def memory_errors_explained(config: DictConfig) -> Iterator[None]:
    """Turn every way of running out of memory into OutOfMemory; ``config``: model and run with all defaults."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            raise
        raise OutOfMemory(_message(error, config)) from error


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_MESSAGES.search(str(error)))


def _message(error: BaseException, config: DictConfig) -> str:
    settings = RunSettings.from_config(config.run)
    model: Any = OmegaConf.to_container(config.model, resolve=True)
    where = "the GPU's memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
    step = f"in step {ACTIVITY.step}, " if ACTIVITY.step else ""
    reason = first_line(error)
    evaluating = settings.evaluate or ACTIVITY.phase.startswith(("evaluating", "computing the metrics"))
    levers = evaluation_levers(settings, config.run) if evaluating else training_levers(settings)
    levers += model_levers(settings, model)
    lower = "; ".join(levers) or "the sizes of model and data"
    return f"{where} is full ({step}{ACTIVITY.phase}): {reason}. Lower what it holds, most effective first: {lower}"


def training_levers(settings: RunSettings) -> list[str]:
    """Changes of `run` that need less memory in training and leave the optimisation steps as they are, at best."""
    levers = []
    if (batch := settings.batch_size_train) > 1:
        half, parts = batch // 2, settings.accum_grad_iters * -(-batch // (batch // 2))
        same = "the same step" if half * parts == batch * settings.accum_grad_iters else "a slightly larger step"
        levers.append(f"run.batch_size_train {batch} -> {half} with run.accum_grad_iters {parts} ({same})")
    if settings.num_workers > 1:
        levers.append(f"run.num_workers {settings.num_workers} -> {settings.num_workers // 2} (the machine's memory)")
    return levers


def evaluation_levers(settings: RunSettings, run: Mapping[str, Any]) -> list[str]:
    levers = []
    if (batch := settings.batch_size_eval) > 1:
        levers.append(f"run.batch_size_eval {batch} -> {batch // 2} (the same results)")
    if int(run.get("num_beams") or 1) > 1:
        levers.append(f"run.num_beams {run['num_beams']} -> 1")
    return levers


def model_levers(settings: RunSettings, model: Mapping[str, Any]) -> list[str]:
    """Further keys that save memory, where this model has them and they are not in use."""
    known: frozenset[str] = getattr(registry.get_model_class(model["arch"]), "CONFIG_KEYS", frozenset())
    levers = []
    if settings.device.startswith("cuda") and settings.precision_on("cuda") == "fp32":
        levers.append("run.precision: bf16")
    for key in ("use_grad_checkpoint", "llm_grad_checkpoint"):
        if key in known and not model.get(key) and not settings.evaluate:
            levers.append(f"model.{key}: true (slower)")
    levers += [
        f"model.{key}: fp16 or bf16"
        for key in ("vit_precision", "llm_precision")
        if key in known and model.get(key) == "fp32"
    ]
    if "max_txt_len" in known and int(model.get("max_txt_len") or 0) > SHORT_TEXT:
        levers.append(f"model.max_txt_len {model['max_txt_len']} -> {SHORT_TEXT} (longer texts are cut)")
    if "freeze_vit" in known and model.get("freeze_vit", True) and not settings.feature_cache:
        levers.append("run.feature_cache: FOLDER (the frozen ViT runs once; pictures without augmentation)")
    if settings.shard == "none" and settings.world_size > 1:
        levers.append("run.shard: frozen (each process keeps a part of the frozen weights)")
    return levers

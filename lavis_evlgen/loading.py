"""Models with their preprocessing by one call, in notebooks and for commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lavis.common.registry import registry
from lavis.models import load_preprocess
from omegaconf import OmegaConf

from lavis_evlgen.errors import ConfigError, nearest, one_line
from lavis_evlgen.interchange.checkpoint import Checkpoint
from lavis_evlgen.interchange.names import is_hub_name
from lavis_evlgen.interchange.pretrained import Interchange
from lavis_evlgen.models.safe_loading import SUFFIXES
from lavis_evlgen.runners.distributed import usable_device


def load_model_and_preprocess(
    name: str,
    model_type: str | Path | None = None,
    is_eval: bool = True,
    device: str | torch.device = "cpu",
    **overrides: Any,
) -> tuple[torch.nn.Module, dict[str, Any], dict[str, Any]]:
    """A model with its weights, its image processors and its text processors.

    Args:
        name: a registered model such as ``evlgen_opt``; LAVIS's own work too.
        model_type: by default the model's usual one (``pretrain_opt2.7b`` for ``evlgen_opt``). Also a folder that
            `save_pretrained` or ``cli export`` wrote, or OWNER/NAME on a Hugging Face hub.
        is_eval: switch dropout off.
        device: where to put the model; on a CPU it computes in fp32.
        overrides: model keys that replace the yaml's, such as ``pretrained="my.pth"`` or ``opt_model="folder"``.

    Returns:
        (model, image processors, text processors), the processors with the entries ``train`` and ``eval``.

    Raises:
        ConfigError: unknown name or model type. WeightsError: weights are missing or do not fit.
    """
    cls = registry.get_model_class(name)
    if cls is None:
        raise ConfigError(f"model {name!r} is not registered{nearest(name, registry.list_models())}")
    model_type = model_type or getattr(cls, "default_model_type", None)
    if model_type is None:
        raise ConfigError(
            f"model_type: {name} has no default; choose one of {', '.join(cls.PRETRAINED_MODEL_CONFIG_DICT)}"
        )
    model = cls.from_pretrained(model_type=model_type, **overrides)
    preprocess = getattr(model, "preprocess", None)
    if preprocess is None:  # a model of LAVIS's own
        preprocess = OmegaConf.load(cls.default_config_path(model_type)).preprocess
    return _ready(model, preprocess, is_eval, device)


def load_checkpoint_and_preprocess(
    path: str, device: str | torch.device = "cpu"
) -> tuple[torch.nn.Module, dict[str, Any], dict[str, Any]]:
    """As :func:`load_model_and_preprocess`, by what a checkpoint file of ours or a model's folder says of itself.

    Args:
        path: the file, the folder, or OWNER/NAME on a Hugging Face hub.

    Raises:
        ConfigError: a file that does not say of which model it is. WeightsError: it is missing, damaged, or does not
            fit.
    """
    if os.path.isdir(os.path.expanduser(path)) or (is_hub_name(path) and not path.endswith(SUFFIXES)):
        model: Any = Interchange.from_pretrained(path)
    else:
        model = Checkpoint.read(path).build()
    return _ready(model, model.preprocess, True, device)


def load_by_options(
    name: str | None, model_type: str | None, checkpoint: str | None, device: str | None
) -> tuple[Any, Callable[[Any], torch.Tensor], torch.device]:
    """The model that the options --model, --model-type, --checkpoint and --device of a command name, for evaluation.

    Returns:
        The model; its processor, of a PIL picture to [3, H, W] or of a clip's path to [3, T, H, W]; its device.
    """
    try:
        place = usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"), key="--device")
    except RuntimeError as error:
        raise ConfigError(f"--device {device}: torch knows no such device; use cpu, cuda or cuda:N") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device {device}: torch finds {torch.cuda.device_count()} GPUs here, from cuda:0 on")
    if checkpoint and not name:
        model, processors, _ = load_checkpoint_and_preprocess(checkpoint, place)
    else:
        options: dict[str, Any] = {"model_type": model_type}
        if checkpoint and Path(checkpoint).is_dir():
            options = {"model_type": checkpoint}
        elif checkpoint:
            options |= {"pretrained": checkpoint, "load_finetuned": False}
        model, processors, _ = load_model_and_preprocess(name or "evlgen", device=place, **options)
    return model, processors["eval"], place


def _ready(
    model: Any, preprocess: Any, is_eval: bool, device: str | torch.device
) -> tuple[torch.nn.Module, dict[str, Any], dict[str, Any]]:
    """A built model on its device, with its processors."""
    try:
        processors = load_preprocess(OmegaConf.create(preprocess))
    except Exception as error:  # whatever a processor makes of values that it cannot use
        raise ConfigError(f"preprocess: the model's processors cannot be made: {one_line(error)}") from error
    if torch.device(device).type == "cpu":
        model = model.float()
    return (model.to(device).train(not is_eval), *processors)

"""The weights that a model had before its training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from lavis.common.registry import registry
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lavis_evlgen.errors import ConfigError, nearest
from lavis_evlgen.models.checkpoints import read_file
from lavis_evlgen.models.config import ModelConfig
from lavis_evlgen.models.evlgen import EVLGen

SEED = 42  # of a run that does not say another


@dataclass(frozen=True)
class Start:
    """The trainable weights before training, by name, and in words what they are."""

    weights: dict[str, Tensor]
    text: str


def start_weights(model: str | None, model_type: str | None, checkpoint: str | None) -> Start:
    """Build a model as it was before training, and keep its trainable weights.

    Without `model`, the start is the one of the configuration that the checkpoint carries: its seed, and the weights
    that it loaded if it did. With `model`, it is the model type without its trained weights, by the seed of the run
    that wrote these, or 42 where they don't say it.

    Args:
        model: a registered model; None takes the checkpoint's own, or `evlgen` if there is no checkpoint.
        model_type: one of its types; None takes its usual one.
        checkpoint: the trained weights; None takes those that the model type names.

    Raises:
        ConfigError: there are no trained weights, or the model is none of EVLGen's.
        WeightsError: weights are missing or do not fit.
    """
    config: DictConfig
    if checkpoint and os.path.isdir(checkpoint):
        raise ConfigError(
            f"--before: the folder {checkpoint} does not say what its training started from; name the checkpoint"
        )
    if checkpoint and not model:
        saved = _saved_config(checkpoint)
        if "model" not in saved:
            raise ConfigError(
                f"--checkpoint {checkpoint} does not say of which model it is: add --model and --model-type"
            )
        config = saved.model
        cls = _model_class(config.arch)
    else:
        cls = _model_class(model or "evlgen")
        config = OmegaConf.load(cls.default_config_path(model_type or cls.default_model_type)).model
        trained = checkpoint or config.get("finetuned" if config.get("load_finetuned") else "pretrained")
        if not trained:
            raise ConfigError(
                "--before: the model type names no trained weights to compare with; add --checkpoint FILE"
            )
        trained = os.path.expanduser(trained)
        saved = _saved_config(trained) if os.path.isfile(trained) else OmegaConf.create()  # a URL says nothing
        config.merge_with({"load_pretrained": False, "load_finetuned": False})
    seed = int(saved.get("run", {}).get("seed", SEED))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = cls.from_config(config)
    return Start(
        {name: tensor.cpu() for name, tensor in start.trainable_state_dict().items()}, _described(config, seed)
    )


def _saved_config(path: str) -> Any:
    """The configuration that a checkpoint of ours carries; empty for others."""
    return OmegaConf.create(read_file(path).get("config") or {})


def _model_class(name: str) -> Any:
    cls = registry.get_model_class(name)
    if cls is None:
        raise ConfigError(f"model {name!r} is not registered{nearest(name, registry.list_models())}")
    if not issubclass(cls, EVLGen):
        raise ConfigError(f"--before: {name} is no model of this package; only of these the start is known")
    return cls


def _described(config: DictConfig, seed: int) -> str:
    values: Any = OmegaConf.to_container(config, resolve=True)
    parsed = ModelConfig.parse(values)
    if parsed.checkpoint():
        return f"the weights {parsed.checkpoint()} that this training started from"
    connector = parsed.connector_weights or (parsed.bert_model if parsed.connector != "linear" else None)
    return f"fresh weights by the seed {seed}" + (f", the connector's layers from {connector}" if connector else "")

"""Layers of a language model, whoever wrote it, and activation checkpointing of any layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lavis_evlgen.errors import ConfigError


def find_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of a Hugging Face causal language model, in the order of the path.

    Raises:
        ConfigError: it has no list of layers.
    """
    # the outermost list: experts and the like stand in lists inside a layer
    layers = next((module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)), None)
    if layers is None:
        raise ConfigError(
            f"no list of layers found in {type(model).__name__}, which llm_grad_checkpoint and run.shard need; do "
            "without them or take another language model"
        )
    return list(layers)


def checkpoint_layers(layers: Iterable[nn.Module]) -> None:
    """Let every layer forget its activations and compute them again in the backward pass."""
    for layer in layers:
        layer.forward = partial(_checkpointed, layer.forward)  # type: ignore[method-assign]


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)

"""One training step of a model, run on tensors without values: its parameters, tokens, multiply-accumulates, memory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lavis_evlgen.cost.ledger import OTHER, Ledger, Macs, owners
from lavis_evlgen.cost.shapes import make_fake, shapes_only
from lavis_evlgen.cost.steps import step_of
from lavis_evlgen.models.blip2_stage1 import Blip2Stage1
from lavis_evlgen.models.evlgen import EVLGen
from lavis_evlgen.peak_memory import PeakMemory


@dataclass
class Parameters:
    """Numbers of parameters, and the bytes that they are kept in."""

    trainable: int = 0
    frozen: int = 0
    trainable_bytes: int = 0
    frozen_bytes: int = 0


@dataclass(frozen=True)
class Measured:
    """What one training step takes.

    Attributes:
        parameters: by part; a part is a child of the model, and `input_proj` the connector's first layer.
        macs: by part, for one image or clip.
        connector: the name of the part that gives the tokens.
        calls: `macs` of each time that the connector was entered, which BLIP-2's first stage does four times.
        tokens: visual tokens of an image, then the tokens after every layer of the connector.
        prompt_tokens: those that the language model sees; 0 without one.
        step_bytes: the most that one step over the whole batch holds at a time, besides weights and optimiser state:
            activations, gradients, 16-bit copies of weights.
    """

    parameters: dict[str, Parameters]
    macs: dict[str, Macs]
    connector: str
    calls: list[Macs]
    tokens: list[int]
    prompt_tokens: int
    step_bytes: int


@shapes_only()
def measure(
    model: EVLGen | Blip2Stage1,
    batch: int,
    text_length: int,
    *,
    num_frames: int = 1,
    half: bool = True,
    from_features: bool = False,
    trains: bool = True,
) -> Measured:
    """Run a step of a model without values.

    Args:
        model: from `build_skeleton`; its tensors are replaced by fake ones.
        batch: images of a step on one GPU.
        text_length: tokens of each text, special ones included.
        num_frames: of a clip; only for a model of clips.
        half: autocast to 16 bits, as in training with fp16 or bf16.
        from_features: the frozen ViT's features come from a cache; its row counts the pass that put them there.
        trains: count the backward pass too.
    """
    make_fake(model)
    parts = _parts(model)
    step = step_of(model, text_length, num_frames, from_features)

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16, enabled=half)

    ledger = Ledger(parts)
    with PeakMemory() as memory, ledger.counting(), torch.set_grad_enabled(trains):
        with autocast():
            loss = step.loss(batch)
        if trains:
            ledger.backward(loss)
    if from_features:  # what was needed once for every image
        with ledger.counting(), torch.no_grad():
            model.vision(step.pictures(batch))
    with torch.no_grad(), autocast():
        tokens = step.tokens(batch)
    return Measured(
        parameters=_parameters(model, parts),
        macs={name: _each(account, batch) for name, account in ledger.macs.items() if name != OTHER or account.forward},
        connector=step.connector,
        calls=[_each(call, batch) for call in ledger.calls[step.connector]],
        tokens=tokens,
        prompt_tokens=step.prompt_tokens,
        step_bytes=memory.peak,
    )


def _each(account: Macs, batch: int) -> Macs:
    """For one image what was counted for a batch."""
    return Macs(account.forward / batch, account.backward / batch, account.linear / batch)


def _parts(model: nn.Module) -> dict[str, nn.Module]:
    """The model's children, in the order of the path, and the connector's input layer apart from its layers."""
    parts: dict[str, Any] = dict(model.named_children())
    connector = parts.get("connector")
    if connector is not None and hasattr(connector, "input_proj"):
        parts["input_proj"] = connector.input_proj
    order = ["vision", "temporal", "ln_vision", "input_proj", "connector"]
    return {name: parts[name] for name in sorted(parts, key=lambda each: (order + list(parts)).index(each))}


def _parameters(model: nn.Module, parts: dict[str, nn.Module]) -> dict[str, Parameters]:
    """By part; every parameter counts once. What lies in the model itself counts as "other"."""
    owner = {id(own): name for module, name in owners(parts).items() for own in module.parameters(recurse=False)}
    found = {name: Parameters() for name in [*parts, OTHER]}
    for parameter in model.parameters():
        counts, size = found[owner.get(id(parameter), OTHER)], parameter.numel()
        if parameter.requires_grad:
            counts.trainable += size
            counts.trainable_bytes += size * parameter.element_size()
        else:
            counts.frozen += size
            counts.frozen_bytes += size * parameter.element_size()
    return {name: counts for name, counts in found.items() if name != OTHER or counts.trainable or counts.frozen}

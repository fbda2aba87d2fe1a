"""One copy of a frozen ViT and language model for all arms that use the same."""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from lavis_evlgen.errors import EvlgenError
from lavis_evlgen.models.config import ModelConfig

PARTS = ("vision", "language")


def share_frozen_parts(model: Any, section: dict[str, Any], pool: dict[str, nn.Module]) -> None:
    """Let `model` use the pool's frozen parts where they were built from the same keys, and add its own ones.

    Args:
        model: any model; only parts of ours that are frozen, without a contextualizer in them, are shared.
        section: its whole model section.
        pool: parts so far; arms that take turns never run at the same time, so that they can share them.
    """
    try:
        config = ModelConfig.parse(section)
        keys = {"vision": config.vision(), "language": config.language(getattr(model, "language_kind", None))}
    except (EvlgenError, TypeError):  # not a model of ours
        return
    for name in PARTS:
        part = getattr(model, name, None)
        changed = name == "vision" and getattr(part, "passes_gradient", False)
        if not isinstance(part, nn.Module) or changed or any(p.requires_grad for p in part.parameters()):
            continue
        setattr(model, name, pool.setdefault(json.dumps([name, keys[name]], sort_keys=True, default=str), part))

"""Names of models and of their parts: a hub's, an embedded one, or a path."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lavis_evlgen.embedded.folders import PREFIX, cache_root
from lavis_evlgen.embedded.weights import MODELS

_WORD = r"[A-Za-z0-9_][\w.-]*"
_HUB = re.compile(rf"{_WORD}(/{_WORD})?", re.ASCII)
_CACHED = re.compile(r"models--(.+?)--(.+)")
_HF = "hf:"  # before the name of a ViT


def is_hub_name(name: str) -> bool:
    """Whether a name is one of a hub (``NAME`` or ``OWNER/NAME``) or an embedded one, and so no path."""
    return bool(_HUB.fullmatch(name.removeprefix(PREFIX)))


def portable(name: str) -> str:
    """The hub's or embedded name of a part that is named by its folder in a cache; others as they are."""
    prefix, plain = (_HF, name.removeprefix(_HF)) if name.startswith(_HF) else ("", name)
    path = Path(os.path.expanduser(plain))
    cached = _CACHED.fullmatch(path.parent.parent.name)
    if cached and path.parent.name == "snapshots":
        return f"{prefix}{cached[1]}/{cached[2]}"
    if path.parent == cache_root():
        return next((f"{prefix}{PREFIX}{key}" for key in MODELS if path.name.startswith(f"{key}-")), name)
    return name

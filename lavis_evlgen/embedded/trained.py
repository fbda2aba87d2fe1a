"""Models of this package that come with it, trained: folders that `save_pretrained` writes, beside this file."""

from __future__ import annotations

from pathlib import Path

from lavis_evlgen.embedded.folders import PREFIX
from lavis_evlgen.errors import ConfigError, WeightsError, nearest

WEIGHTS = "model.safetensors"
"""The file of a model's folder that holds what was trained."""
MADE_BY = {"demo": "make embedded-model"}
"""The models, and what makes each again in a checkout of the repository."""


def folder(name: str) -> Path:
    """Where the files of a model lie, or would."""
    return Path(__file__).parent / name


def resolve(source: str) -> str:
    """The folder of a model for ``embedded:NAME``; anything else is returned unchanged.

    Raises:
        ConfigError: no model of this name. WeightsError: its files are not there.
    """
    if not source.startswith(PREFIX):
        return source
    name = source.removeprefix(PREFIX)
    if name not in MADE_BY:
        raise ConfigError(f"there is no trained model {source!r}{nearest(source, [PREFIX + each for each in MADE_BY])}")
    if not (folder(name) / WEIGHTS).is_file():
        raise WeightsError(
            f"the trained model {source} is not in {folder(name)}: install lavis_evlgen anew, or in a checkout of the "
            f"repository run: {MADE_BY[name]}. Other weights: pretrained='FILE', or --checkpoint FILE"
        )
    return str(folder(name))

"""The processors of a model: the content of preprocessor_config.json, the section `preprocess` of a model type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_evlgen.errors import ConfigError, nearest, one_line
from lavis_evlgen.interchange.json_files import check_known

SECTIONS = ("vis_processor", "text_processor")
SPLITS = ("train", "eval")


def check_preprocess(preprocess: Mapping[str, Any], where: Path | str) -> None:
    """Raise ConfigError for a section or processor that is not known, or where pictures have none for evaluation."""
    check_known(where, preprocess, SECTIONS)
    for section, splits in preprocess.items():
        if not isinstance(splits, Mapping):
            raise ConfigError(f"{where}: {section} holds no processors, for example {{'eval': {{'name': …}}}}")
        check_known(f"{where}: {section}", splits, SPLITS)
    for place, processor in _processors(preprocess):
        if not isinstance(processor, Mapping) or not isinstance(name := processor.get("name"), str):
            raise ConfigError(f"{where}: {place} names no processor")
        if registry.get_processor_class(name) is None:
            known = registry.list_processors()
            raise ConfigError(f"{where}: {place}: the processor {name!r} is not registered{nearest(name, known)}")
    if not preprocess.get("vis_processor", {}).get("eval"):
        raise ConfigError(f"{where}: vis_processor.eval is missing")


def complete(preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which the processors of pictures say their mean and standard deviation, be they LAVIS's defaults."""
    check_preprocess(preprocess, "preprocess")
    copy = {section: {split: dict(each) for split, each in of.items()} for section, of in preprocess.items()}
    for place, values in _processors(copy):
        try:
            values |= _said_by(values)
        except Exception as error:  # whatever a processor makes of values that it cannot use
            raise ConfigError(f"preprocess: {place}: {values['name']} cannot be made: {one_line(error)}") from error
    return copy


def _said_by(values: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation of a processor of pictures or clips that does not say them; nothing of others."""
    processor = registry.get_processor_class(values["name"]).from_config(OmegaConf.create(dict(values)))
    normalize = getattr(processor, "normalize", None)
    if normalize is None:
        return {}
    scale = 255 if max(normalize.std) > 1 else 1  # clips are normalised as bytes
    said = {"mean": normalize.mean, "std": normalize.std}
    return {key: [round(value / scale, 8) for value in of] for key, of in said.items() if key not in values}


def _processors(preprocess: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, splits in preprocess.items():
        for split, processor in splits.items():
            yield f"{section}.{split}", processor

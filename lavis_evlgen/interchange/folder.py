"""Writing a model's folder, and building the model of one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lavis_evlgen.datasets.whole_files import unfinished, write_text
from lavis_evlgen.embedded.trained import WEIGHTS
from lavis_evlgen.errors import ConfigError, EvlgenError, WeightsError
from lavis_evlgen.interchange.files import CARD, CONFIG, ELSEWHERE, LIBRARY, PARTS, PREPROCESSOR, ModelFiles
from lavis_evlgen.interchange.json_files import write_object
from lavis_evlgen.interchange.names import is_hub_name
from lavis_evlgen.models.checkpoints import read_weights
from lavis_evlgen.models.config import check_keys

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def write_folder(
    folder: str | Path, files: ModelFiles, weights: Mapping[str, Tensor], dtype: str = "fp32", card: str | None = None
) -> Path:
    """Write the folder of a model; files that are there already are replaced, each at once.

    Args:
        weights: by name, at least those that train.
        dtype: fp32, fp16 or bf16; what the numbers in `weights` are rounded to.
        card: the text of README.md; None leaves one that is there.

    Raises:
        ConfigError: an unknown dtype, or the folder holds files of these names that are of something else.
        WeightsError: a weight is too large for the dtype, or not finite. EvlgenError: the folder cannot be written.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: {dtype!r} is unknown; choose {', '.join(DTYPES)}")
    # copies: safetensors refuses tensors that share memory, as tied ones do
    rounded = {name: _rounded(name, tensor, dtype) for name, tensor in weights.items()}
    folder = Path(folder).expanduser()
    _check_free(folder, (WEIGHTS, CONFIG, PREPROCESSOR) if card is None else (WEIGHTS, CONFIG, PREPROCESSOR, CARD))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished(folder / WEIGHTS) as temporary:
            save_file(rounded, temporary, metadata={"format": "pt"})
            temporary.chmod(0o644)  # safetensors closes its files to everybody else
        write_object(folder / CONFIG, files.config(str(DTYPES[dtype]).removeprefix("torch.")))
        write_object(folder / PREPROCESSOR, files.preprocess)
        if card is not None:
            write_text(folder / CARD, card)
    except OSError as error:
        raise EvlgenError(f"could not write the folder {folder}: {error}") from error
    return folder


def load_folder(cls: type, folder: Path, from_hub: bool, overrides: Mapping[str, Any]) -> Any:
    """The model of a folder, in eval mode.

    Args:
        cls: what it must be an instance of.
        from_hub: the folder was fetched from a hub, so that no part may be a path of this machine.
        overrides: model keys in place of config.json's.

    Raises:
        ConfigError: config.json or preprocessor_config.json is missing, damaged or has something unknown in it, or the
            model is no `cls`. WeightsError: the weights, or a frozen part, are missing, damaged or do not fit.
    """
    files = ModelFiles.read(folder)
    found = files.model_class
    if not issubclass(found, cls):
        raise ConfigError(f"{folder} holds a model {files.arch!r}, which is no {cls.__name__}: name {files.arch!r}")
    check_keys(overrides, found.CONFIG_KEYS)
    own = sorted(ELSEWHERE & overrides.keys())
    if own:
        raise ConfigError(f"model.{own[0]} cannot be given with a folder: it holds the model's name and weights itself")
    values = {**files.values, **overrides}
    _check_parts(folder, values, from_hub, overrides)
    try:
        model = found.from_config({"arch": files.arch, **values})
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG}: {error}") from error
    weights = folder / WEIGHTS
    model.load_trainable_state_dict(read_weights(str(weights)), str(weights))
    model.preprocess = files.preprocess
    model.question_prompt = files.question_prompt
    return model.eval()


def _check_free(folder: Path, names: Sequence[str]) -> None:
    """Raise ConfigError where files to be written would replace those of something else than a model of ours."""
    config = folder / CONFIG
    if config.is_file() and LIBRARY in config.read_text(encoding="utf-8", errors="replace"):
        return
    if taken := [name for name in names if (folder / name).exists()]:
        raise ConfigError(f"{folder} has a {taken[0]} that belongs to no model of this package: name another folder")


def _rounded(name: str, tensor: Tensor, dtype: str) -> Tensor:
    tensor = tensor.detach().to("cpu", DTYPES[dtype] if tensor.is_floating_point() else tensor.dtype, copy=True)
    if not tensor.isfinite().all():
        raise WeightsError(f"{name} holds numbers that are not finite in {dtype}; choose bf16 or fp32, or train again")
    return tensor.contiguous()


def _check_parts(folder: Path, values: Mapping[str, Any], from_hub: bool, overrides: Mapping[str, Any]) -> None:
    """Raise for a part that is a path of the machine where the folder was written."""
    for key in PARTS:
        name = values.get(key)
        if not isinstance(name, str) or key in overrides:
            continue
        plain = name.removeprefix("hf:")
        if key != "vit_weights" and is_hub_name(plain):
            continue
        place = f"{folder / CONFIG}: model.{key} is the path {name!r}"
        way_out = f"give another one: from_pretrained({str(folder)!r}, {key}=…)"
        if from_hub:
            raise ConfigError(f"{place}, and paths are not taken from a hub; {way_out}")
        if not os.path.exists(os.path.expanduser(plain)):
            raise WeightsError(f"{place}, which is not here; {way_out}")

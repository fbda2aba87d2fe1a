"""Finding pretrained parts: a folder, a Hugging Face name or an embedded model."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from lavis_evlgen.embedded import weights as embedded
from lavis_evlgen.errors import ConfigError, WeightsError

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def parse_precision(precision: str, key: str) -> torch.dtype:
    """The dtype of frozen weights. Without a GPU fp16 means fp32: processors are slow in fp16.

    Raises:
        ConfigError: `precision` is none of fp16, bf16, fp32.
    """
    if precision not in _DTYPES:
        raise ConfigError(f"{key}: {precision!r} is unknown; choose fp16, bf16 or fp32")
    dtype = _DTYPES[precision]
    return torch.float32 if dtype is torch.float16 and not torch.cuda.is_available() else dtype


def load_pretrained(load: Callable[..., Any], name: str, key: str, **kwargs: Any) -> Any:
    """``load(folder_or_name, **kwargs)``, with an error that says what is missing and which key sets a local path.

    Args:
        load: a transformers ``from_pretrained``.
        name: a local folder, a Hugging Face name, or ``embedded:…``.
        key: the configuration key that `name` came from, for the message.

    Raises:
        WeightsError: nothing loadable under that name.
    """
    source = embedded.resolve(name)
    try:
        return load(source, **kwargs)
    except (OSError, ValueError) as error:
        cache = os.environ.get("HF_HOME", os.path.join("~", ".cache", "huggingface"))
        raise WeightsError(
            f"{key}: cannot load {name!r}: it is no folder here ({os.path.abspath(os.path.expanduser(name))}), "
            f"not in the Hugging Face cache ({cache}) and could not be downloaded. "
            f"Set model.{key} to a local folder that holds it. ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

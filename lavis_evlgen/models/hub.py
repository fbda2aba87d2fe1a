"""Finding pretrained parts: a folder, a Hugging Face name or an embedded model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from lavis_evlgen.embedded import weights as embedded
from lavis_evlgen.errors import ConfigError, WeightsError, first_line

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_builder: ContextVar[Callable[..., Any] | None] = ContextVar("builder", default=None)


@contextmanager
def without_weights(build: Callable[..., Any]) -> Iterator[None]:
    """Within it no weights are read: `build` answers every call of `load_pretrained`, and LAVIS's ViTs stay empty."""
    token = _builder.set(build)
    try:
        yield
    finally:
        _builder.reset(token)


def weights_are_left_out() -> bool:
    """Whether this runs within `without_weights`."""
    return _builder.get() is not None


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
    build = _builder.get()
    if build is not None:
        return build(load, name, key, **kwargs)
    source = embedded.resolve(name)
    try:
        return load(source, **kwargs)
    except (OSError, ValueError) as error:
        cache = os.environ.get("HF_HOME", os.path.join("~", ".cache", "huggingface"))
        raise WeightsError(
            f"{key}: cannot load {name!r}: it is no folder here ({os.path.abspath(os.path.expanduser(name))}), "
            f"not in the Hugging Face cache ({cache}) and could not be downloaded. "
            f"Set model.{key} to a local folder that holds it. ({first_line(error)[:200]})"
        ) from error

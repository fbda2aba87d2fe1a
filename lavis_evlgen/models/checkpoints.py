"""Reading checkpoints: ours, the official EVLGen release's, and what is wrong with the others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, cast

import torch
from lavis.common.utils import is_url
from safetensors.torch import load_file
from torch import Tensor, nn

from lavis_evlgen.downloads import download_cached_file
from lavis_evlgen.embedded import trained
from lavis_evlgen.errors import WeightsError, first_line
from lavis_evlgen.models.safe_loading import files_beside, read_plain

# the names of the official release beside ours
_OFFICIAL_PREFIXES = {
    "visual_encoder.": "vision.encoder.",
    "VL_proj.": "connector.input_proj.",
    "VLconnector.": "connector.",
    "opt_proj.": "prompt_proj.",
    "llm_proj.": "prompt_proj.",
    "opt_model.": "language.model.",
    "llm_model.": "language.model.",
}
# inside the ViT's blocks in the official release; ours stands beside the ViT
_OFFICIAL_CONTEXTUALIZER = re.compile(r"visual_encoder\..*?(\d+)\.temporal_merge\.")
# buffers that older transformers versions saved and newer ones compute
_IGNORED_SUFFIXES = ("rotary_emb.inv_freq", "position_ids")


def read_file(path: str, key: str = "checkpoint") -> dict[str, Any]:
    """What a .pth or .safetensors file holds, read without running any code from it.

    Raises:
        WeightsError: the file is missing, damaged, or holds something else than tensors and plain values.
    """
    if not os.path.isfile(path):
        raise WeightsError(f"{key}: there is no file {path!r} (looked in {os.path.abspath(path)}){files_beside(path)}")
    try:
        content = load_file(path) if path.endswith(".safetensors") else read_plain(path)
    except Exception as error:  # safetensors has its own kinds
        raise WeightsError(f"{key}: {path!r} is damaged or no file of weights ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{key}: {path!r} holds a {type(content).__name__}, expected a dictionary of tensors")
    return content


def read_weights(path: str, key: str = "checkpoint") -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name, unwrapped from a "model" entry if there is one.

    Raises:
        WeightsError: see `read_file`; or an entry is no tensor.
    """
    content = read_file(path, key)
    weights = content.get("model", content)
    if not isinstance(weights, dict):
        raise WeightsError(f"{key}: {path!r} holds a {type(weights).__name__} as 'model', expected tensors by name")
    others = [name for name, value in weights.items() if not isinstance(value, Tensor) or not isinstance(name, str)]
    if others:
        raise WeightsError(f"{key}: {path!r} holds entries that are no tensors, first {others[0]!r}")
    return weights


def rename_official(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official EVLGen names to ours; names that already are ours stay."""
    renamed = {}
    for official, tensor in weights.items():
        name = _OFFICIAL_CONTEXTUALIZER.sub(r"temporal.blocks.\1.", official)
        prefix = next((prefix for prefix in _OFFICIAL_PREFIXES if name.startswith(prefix)), None)
        renamed[_OFFICIAL_PREFIXES[prefix] + name[len(prefix) :] if prefix else name] = tensor
    return renamed


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load a checkpoint into a model: strict about what trains, tolerant about frozen parts that are not in it.

    Args:
        model: an EVLGen model.
        weights: tensors under our names or the official ones, with or without the frozen parts.
        source: the file's name, for messages.

    Raises:
        WeightsError: a trainable tensor is missing, a tensor has another shape, or the checkpoint has tensors that
            the model does not. Nothing is loaded then.
    """
    weights = rename_official(weights)
    own = dict(model.state_dict(keep_vars=True))
    trainable = {name for name, tensor in own.items() if tensor.requires_grad}
    unknown = [name for name in weights if name not in own and not name.endswith(_IGNORED_SUFFIXES)]
    problems = [
        *_describe("trainable tensors are missing", sorted(trainable - set(weights) - _neutral(trainable, weights))),
        *_describe("tensors belong to another model", unknown),
        *_describe(
            "tensors have another shape",
            (
                f"{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
                for name, tensor in weights.items()
                if name in own and own[name].shape != tensor.shape
            ),
        ),
    ]
    if problems:
        raise WeightsError(f"{source} does not fit this model: {'; '.join(problems)}")
    with torch.no_grad():
        for name, tensor in weights.items():
            if name in own:
                own[name].copy_(tensor)


def local_file(source: str) -> str:
    """The path of a file: of a URL, which is downloaded first, of an embedded model, or of a model's folder."""
    if is_url(source):
        return download_cached_file(source, check_hash=False)
    path = os.path.expanduser(trained.resolve(source))
    return os.path.join(path, trained.WEIGHTS) if os.path.isdir(path) else path


class LoadsCheckpoints:
    """Mixin for models: checkpoints of ours and of the releases that they stand for. It comes before LAVIS's class."""

    def load_trainable_state_dict(self, weights: dict[str, Tensor], source: str = "checkpoint") -> None:
        """Load weights under our names or a release's; see `load_weights` for what is refused."""
        load_weights(cast(nn.Module, self), weights, source)

    def load_checkpoint(self, url_or_filename: str) -> None:
        """Load a checkpoint of ours or of a release from a file or a URL."""
        path = local_file(url_or_filename)
        self.load_trainable_state_dict(read_weights(path), path)

    load_from_pretrained = load_checkpoint


def _neutral(trainable: Iterable[str], weights: Iterable[str]) -> set[str]:
    """Tensors that start without any effect and may be missing: an image model has no contextualizer, and the official
    one no time embedding."""
    of_image = not any(name.startswith("temporal.") for name in weights)
    contextualizer = {name for name in trainable if name.startswith("temporal.")}
    return contextualizer if of_image else {name for name in contextualizer if name.endswith(".time_embedding")}


def _describe(what: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    return [f"{len(names)} {what}, first {names[0]}"] if names else []

"""Starting a connector from a file: BLIP-2's first stage (ours or LAVIS's), or another of our models."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from lavis_evlgen.errors import WeightsError
from lavis_evlgen.models.checkpoints import local_file, read_weights, rename_official

KEY = "connector_weights"
_STAGE1 = {"Qformer.bert.": "connector.bert.", "query_tokens": "connector.query_tokens"}
# the Q-Former's text half, which a connector does not have: word and position tables, and feed-forward layers
_TEXT_HALF = re.compile(
    r"connector\.bert\.(embeddings\.(word_embeddings|position_embeddings|position_ids)"
    r"|encoder\.layer\.\d+\.(intermediate|output)\.)"
)


def load_connector_weights(model: nn.Module, path: str) -> None:
    """Replace `connector` and `ln_vision` of a model by those of a file; everything else in the file is left alone.

    Args:
        model: an EVLGen model.
        path: a file or URL with `Qformer.bert.*`, `query_tokens` and `ln_vision.*` (`blip2_stage1`, and LAVIS's
            BLIP-2 models of both stages), or with `connector.*` and `ln_vision.*` (our models), or the official
            EVLGen names.

    Raises:
        WeightsError: a tensor of the connector is missing, has another shape, or belongs to another kind of connector.
    """
    found = {
        name: tensor for name, tensor in _our_names(read_weights(local_file(path), KEY)).items() if _is_wanted(name)
    }
    own = {name: tensor for name, tensor in model.named_parameters() if _is_wanted(name)}
    for name in own:
        if name not in found:
            raise WeightsError(f"{KEY}: {path} has no {name}, which the connector needs: it holds another connector")
        if found[name].shape != own[name].shape:
            raise WeightsError(
                f"{KEY}: {name} is {tuple(found[name].shape)} in {path} but {tuple(own[name].shape)} here: give the "
                "connector (connector_config, num_layers, num_query_token) and the ViT the file's sizes"
            )
    for name in found:
        if name not in own:
            raise WeightsError(f"{KEY}: {name} of {path} belongs to another connector (another kind, or more layers)")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(found[name])


def _our_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in rename_official(weights).items():
        prefix = next((prefix for prefix in _STAGE1 if name.startswith(prefix)), None)
        renamed[_STAGE1[prefix] + name[len(prefix) :] if prefix else name] = tensor
    return renamed


def _is_wanted(name: str) -> bool:
    return name.startswith(("connector.", "ln_vision.")) and not _TEXT_HALF.match(name)

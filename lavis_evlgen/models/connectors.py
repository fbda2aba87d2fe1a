"""Choosing a connector by configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoModel, BertConfig, BertPreTrainedModel

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.connector import Connector
from lavis_evlgen.models.hub import load_pretrained
from lavis_evlgen.models.linear import LinearConnector
from lavis_evlgen.models.qformer import QFormerConnector
from lavis_evlgen.models.tomeformer import TomeFormer, bert_weights_for_tomeformer
from lavis_evlgen.models.vision import VisionTower


def build_connector(
    vision: VisionTower,
    connector: str = "tomeformer",
    *,
    bert_model: str | None = "bert-base-uncased",
    connector_config: dict[str, Any] | None = None,
    num_layers: int | None = None,
    tome_r: int | Sequence[float] = 19,
    merge: str = "official",
    num_query_token: int = 32,
    linear_reduction: str = "none",
    connector_start: str = "bert",
) -> Connector:
    """Build the connector from the configuration keys of the same names.

    Args:
        bert_model: a folder or Hugging Face name of the BERT to start from; None gives fresh weights.
        connector_config: fields of BertConfig that replace those of `bert_model` (or of BERT-base without one).
        num_layers: layers to use, the first of the BERT's; all by default.
        num_query_token: L' of a Q-Former, and of a linear connector whose `linear_reduction` is not none.
        linear_reduction: see `LinearConnector`.
        connector_start: see `start` of `TomeFormer`; identity needs fresh weights.

    Returns:
        A module [B, L, D_v] -> [B, L', D] with `reduce`, `hidden_size` (D) and `num_tokens_out` (L').

    Raises:
        ConfigError: unknown connector or field. WeightsError: no BERT under that name.
    """
    if connector not in ("tomeformer", "qformer", "linear"):
        raise ConfigError(f"connector: {connector!r} is unknown; choose tomeformer, qformer or linear")
    if connector_start != "bert" and bert_model:
        raise ConfigError(f"connector_start: {connector_start} is for fresh weights; set bert_model: null")
    bert = None
    if connector == "linear":
        config = bert_config(BertConfig(), connector_config, num_layers)
        return LinearConnector(vision, config.hidden_size, linear_reduction, num_query_token)
    if bert_model:
        bert = load_bert(bert_model)
    config = bert_config(bert.config if bert else BertConfig(), connector_config, num_layers)
    if connector == "qformer":
        return QFormerConnector(vision.num_features, config, num_query_token, bert)
    tomeformer = TomeFormer(
        vision.num_features,
        vision.num_tokens,
        config,
        tome_r=tome_r,
        merge=merge,
        protect_cls=vision.num_prefix_tokens > 0,
        start=connector_start,
    )
    if bert:
        _start_from_bert(tomeformer, bert, bert_model)
    return tomeformer


def load_bert(name: str, kind: Any = AutoModel) -> Any:
    """The BERT under a folder or Hugging Face name, as `kind`: AutoModel, or AutoModelForMaskedLM for one with a head.

    Raises:
        ConfigError: it is no BERT. WeightsError: there is nothing under that name.
    """
    bert = load_pretrained(kind.from_pretrained, name, "bert_model")
    if not isinstance(bert, BertPreTrainedModel):
        raise ConfigError(f"bert_model: {name!r} is a {type(bert).__name__}; the connector starts from a BERT")
    return bert


def bert_config(base: BertConfig, fields: dict[str, Any] | None, num_layers: int | None) -> BertConfig:
    """`base` with the configuration's `fields` in the place of its own; see `build_connector`."""
    values = base.to_dict()
    unknown = sorted(set(fields or {}) - set(values))
    if unknown:
        raise ConfigError(f"connector_config: BertConfig has no {', '.join(unknown)}")
    config = BertConfig(**{**values, **(fields or {})})
    if num_layers is not None:
        config.num_hidden_layers = num_layers
    if config.num_hidden_layers < 1:
        raise ConfigError(f"num_layers: {config.num_hidden_layers}; the connector needs at least one layer")
    return config


def _start_from_bert(tomeformer: TomeFormer, bert: Any, name: str | None) -> None:
    available = bert.config.num_hidden_layers
    if len(tomeformer.layers) > available:
        raise ConfigError(
            f"num_layers: {len(tomeformer.layers)}, but {name} has {available}; "
            "use fewer, or bert_model: null for fresh weights"
        )
    try:
        missing = tomeformer.load_state_dict(bert_weights_for_tomeformer(bert), strict=False).missing_keys
    except RuntimeError as error:
        raise ConfigError(f"connector_config: sizes differ from those of {name}; use bert_model: null") from error
    assert all(key.startswith("input_proj.") for key in missing), missing

"""Choosing a connector by configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoModel, BertConfig, BertModel

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.connector import Connector
from lavis_evlgen.models.hub import load_pretrained
from lavis_evlgen.models.qformer import LinearConnector, QFormerConnector
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
) -> Connector:
    """Build the connector from the configuration keys of the same names.

    Args:
        bert_model: a folder or Hugging Face name of the BERT to start from; None gives fresh weights.
        connector_config: fields of BertConfig that replace those of `bert_model` (or of BERT-base without one).
        num_layers: layers to use, the first of the BERT's; all by default.

    Returns:
        A module [B, L, D_v] -> [B, L', D] with `reduce`, `hidden_size` (D) and `num_tokens_out` (L').

    Raises:
        ConfigError: unknown connector or field. WeightsError: no BERT under that name.
    """
    if connector not in ("tomeformer", "qformer", "linear"):
        raise ConfigError(f"connector: {connector!r} is unknown; choose tomeformer, qformer or linear")
    bert = None
    if connector == "linear":
        config = _bert_config(BertConfig(), connector_config, num_layers)
        return LinearConnector(vision.num_features, vision.num_tokens, config.hidden_size)
    if bert_model:
        bert = load_pretrained(AutoModel.from_pretrained, bert_model, "bert_model")
        if not isinstance(bert, BertModel):
            raise ConfigError(
                f"bert_model: {bert_model!r} is a {type(bert).__name__}; the connector starts from a BERT"
            )
    config = _bert_config(bert.config if bert else BertConfig(), connector_config, num_layers)
    if connector == "qformer":
        return QFormerConnector(vision.num_features, config, num_query_token, bert)
    tomeformer = TomeFormer(
        vision.num_features,
        vision.num_tokens,
        config,
        tome_r=tome_r,
        merge=merge,
        protect_cls=vision.num_prefix_tokens > 0,
    )
    if bert:
        _start_from_bert(tomeformer, bert, bert_model)
    return tomeformer


def _bert_config(base: BertConfig, fields: dict[str, Any] | None, num_layers: int | None) -> BertConfig:
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

"""TomeFormer: a BERT whose layers merge similar visual tokens (EVLGen, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.connector import Connector
from lavis_evlgen.token_reduction import Reduction, bipartite_soft_matching, merge_schedule, token_counts


class TomeFormer(Connector):
    """Visual tokens [B, L, D_v] to fewer tokens [B, L', D].

    A linear layer maps the ViT's width to BERT's. In every layer, after self-attention and before the feed-forward
    half, `bipartite_soft_matching` on the layer's keys merges tokens, so later layers are cheaper. Parameter names
    below `encoder.layer` are Hugging Face BERT's, whose weights load unchanged.

    Args:
        num_features: D_v, the width of the visual tokens.
        num_tokens: L, needed to check the schedule and the position table.
        config: the BERT's size and dropout; `config.num_hidden_layers` layers.
        tome_r: tokens merged a layer: an int, a list, or [r, inflect] (see `merge_schedule`).
        merge: `official`: plain means of what merges in a layer; `size`: means weighted by the patches that tokens
            stand for, with log(size) added to the attention scores (proportional attention, ToMe eq. 1).
        protect_cls: whether token 0 is a CLS token that never merges.
        start: `bert`: weights as BERT's; `identity`: both halves of every layer start as nothing added to the tokens,
            so that the connector begins as a merged linear map (not in the paper).

    Raises:
        ConfigError: unknown `merge` or `start`, a schedule that cannot be met, or fewer positions than tokens.
    """

    def __init__(
        self,
        num_features: int,
        num_tokens: int,
        config: BertConfig,
        *,
        tome_r: int | Sequence[float] = 19,
        merge: str = "official",
        protect_cls: bool = True,
        start: str = "bert",
    ):
        super().__init__()
        if merge not in ("official", "size"):
            raise ConfigError(f"merge: {merge!r} is unknown; choose official or size")
        if start not in ("bert", "identity"):
            raise ConfigError(f"connector_start: {start!r} is unknown; choose bert or identity")
        if num_tokens > config.max_position_embeddings:
            raise ConfigError(
                f"the ViT gives {num_tokens} tokens but the connector has {config.max_position_embeddings} positions: "
                "use a smaller image_size, or a connector_config with max_position_embeddings and bert_model: null"
            )
        self.hidden_size = config.hidden_size
        self.schedule = merge_schedule(tome_r, config.num_hidden_layers)
        self.num_tokens_out = token_counts(num_tokens, self.schedule, protect_cls=protect_cls)[-1]
        self.weigh_by_size = merge == "size"
        self.protect_cls = protect_cls

        config._attn_implementation = "eager"  # BertLayer asks for one, though attention is computed here
        self.input_proj = nn.Linear(num_features, config.hidden_size)
        self.embeddings = VisualEmbeddings(config)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))}
        )
        for part in (self.embeddings, self.encoder):
            part.apply(lambda module: _init_as_bert(module, config.initializer_range))
        if start == "identity":
            self._start_as_identity()

    @property
    def layers(self) -> nn.ModuleList:
        """The BERT layers; they lie under `encoder.layer` so that BERT's weights load by their own names."""
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        return layers

    def _start_as_identity(self) -> None:
        layers: Any = self.layers
        for layer in layers:
            for last in (layer.attention.output.dense, layer.output.dense):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def reduce(self, features: Tensor) -> tuple[Tensor, Reduction]:
        """The merged tokens [B, L', D], and the reduction from the L visual tokens to them."""
        reductions = self.reduce_by_layer(features)
        tokens, reduction = reductions[-1]
        return tokens, reduction

    def reduce_by_layer(self, features: Tensor) -> list[tuple[Tensor, Reduction]]:
        """Tokens and the reduction from the input after every layer; for pictures of what merges when."""
        tokens = self.embeddings(self.input_proj(features))
        so_far = Reduction.identity(tokens.shape[0], tokens.shape[1], tokens.device)
        steps = []
        for layer, r in zip(self.layers, self.schedule, strict=True):
            sizes = so_far.sizes() if self.weigh_by_size else None
            tokens, reduction = self._layer(layer, tokens, r, sizes)
            so_far = so_far.then(reduction)
            steps.append((tokens, so_far))
        return steps

    def _layer(self, layer: Any, x: Tensor, r: int, sizes: Tensor | None) -> tuple[Tensor, Reduction]:
        """One BERT layer with merging between its halves: [B, N, D] -> [B, N - r, D]."""
        attention = layer.attention.self
        heads = attention.num_attention_heads
        query, key, value = (
            proj(x).unflatten(-1, (heads, -1)).transpose(1, 2)
            for proj in (attention.query, attention.key, attention.value)
        )
        bias = None if sizes is None else sizes.log()[:, None, None, :].to(query.dtype)
        dropout = attention.dropout.p if self.training else 0.0
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        x = layer.attention.output(context.transpose(1, 2).flatten(2), x)
        reduction = bipartite_soft_matching(key.mean(dim=1), r, protect_cls=self.protect_cls, sizes=sizes)
        return layer.feed_forward_chunk(reduction.apply(x)), reduction


class VisualEmbeddings(nn.Module):
    """BERT's embeddings without words: positions and token type 0 are added to tokens [B, L, D]."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: x.shape[1]]
        return self.dropout(self.LayerNorm(x + positions + self.token_type_embeddings.weight[0]))


def _init_as_bert(module: nn.Module, std: float) -> None:
    """BERT's own start, for weights that no checkpoint replaces."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def bert_weights_for_tomeformer(bert: nn.Module) -> dict[str, Tensor]:
    """The part of a Hugging Face BertModel's weights that TomeFormer uses: all but words and pooler."""
    state = bert.state_dict()
    return {name: tensor for name, tensor in state.items() if _is_used(name)}


def _is_used(name: str) -> bool:
    return name.startswith("encoder.layer.") or (
        name.startswith("embeddings.") and "word" not in name and not name.endswith(("position_ids", "token_type_ids"))
    )

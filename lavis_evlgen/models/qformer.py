"""A connector to compare with: BLIP-2's Q-Former, LAVIS's own."""

from __future__ import annotations

import torch
from lavis.models.blip2_models.Qformer import BertLMHeadModel
from torch import Tensor, nn
from transformers import BertConfig

from lavis_evlgen.models.connector import Connector


class QFormerConnector(Connector):
    """LAVIS's Q-Former without its text half: visual tokens [B, L, D_v] to queries [B, Q, D].

    Args:
        num_features: D_v, the width of the visual tokens that the queries attend to.
        config: the BERT's size; cross-attention stands in every second layer.
        num_query_tokens: Q, 32 in BLIP-2.
        bert: a BERT to start from; the queries' feed-forward halves start as copies of its own, as in BLIP-2.
    """

    def __init__(
        self, num_features: int, config: BertConfig, num_query_tokens: int = 32, bert: nn.Module | None = None
    ):
        super().__init__()
        config = qformer_config(config, num_features, num_query_tokens)
        self.hidden_size = config.hidden_size
        self.num_tokens_out = num_query_tokens
        self.query_tokens = nn.Parameter(
            torch.randn(1, num_query_tokens, config.hidden_size) * config.initializer_range
        )
        self.bert = BertLMHeadModel(config).bert
        if bert is not None:
            self.bert.load_state_dict(with_query_halves(bert.state_dict()), strict=False)
        self._drop_text_half()

    def _drop_text_half(self) -> None:
        self.bert.embeddings.word_embeddings = None
        self.bert.embeddings.position_embeddings = None
        for layer in self.bert.encoder.layer:
            layer.output = None
            layer.intermediate = None

    def reduce(self, features: Tensor) -> tuple[Tensor, None]:
        """The queries [B, Q, D]; no reduction, since queries stand for no particular patches."""
        mask = torch.ones(features.shape[:2], dtype=torch.long, device=features.device)
        output = self.bert(
            query_embeds=self.query_tokens.expand(len(features), -1, -1),
            encoder_hidden_states=features,
            encoder_attention_mask=mask,
            return_dict=True,
        )
        return output.last_hidden_state, None


def qformer_config(config: BertConfig, num_features: int, num_query_tokens: int) -> BertConfig:
    """A BERT's configuration with what a Q-Former has besides: queries, and cross-attention in every second layer."""
    config.encoder_width = num_features
    config.add_cross_attention = True
    config.cross_attention_freq = 2
    config.query_length = num_query_tokens
    return config


def with_query_halves(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Q-Former's weights whose queries' feed-forward halves are copies of the text's, as BLIP-2 starts them."""
    copies = {
        name.replace(f".{half}.", f".{half}_query."): tensor
        for name, tensor in state.items()
        for half in ("intermediate", "output")
        if f".{half}." in name and "attention" not in name
    }
    return {**state, **copies}

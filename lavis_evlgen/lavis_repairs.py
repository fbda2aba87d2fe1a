"""Repairs of LAVIS 1.0.2 on today's transformers, made from outside; LAVIS's files stay as they are."""

from __future__ import annotations

from typing import Any

import torch
from lavis.models.blip2_models import blip2_opt
from lavis.models.blip2_models.modeling_opt import OPTForCausalLM as LavisOPT
from transformers.generation import GenerationMixin


class OPTForCausalLM(LavisOPT, GenerationMixin):
    """LAVIS's OPT, as its blip2_opt model uses it, on transformers 4.28 and later.

    Since 4.28 transformers repeats every tensor for beams, also LAVIS's `query_embeds`, which LAVIS has repeated
    already; since 4.52 models no longer inherit `generate`.
    """

    @staticmethod
    def _expand_inputs_for_generation(
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.LongTensor, dict[str, Any]]:
        query_embeds = kwargs.pop("query_embeds", None)
        input_ids, kwargs = GenerationMixin._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
        )
        return input_ids, {**kwargs, "query_embeds": query_embeds}


def repair() -> None:
    """Make LAVIS's own blip2_opt generate right; harmless when repeated."""
    blip2_opt.OPTForCausalLM = OPTForCausalLM

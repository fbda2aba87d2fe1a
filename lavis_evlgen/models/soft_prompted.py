"""A language model behind a soft prompt: how texts become its tokens, and where its logits are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.frozen import Frozen
from lavis_evlgen.models.layers import find_layers
from lavis_evlgen.models.tokens import end_token, padded, spaced


class SoftPrompted(Frozen):
    """A frozen causal language model that reads ``[bos][soft prompt][prompt text][text][end]``.

    A family that wants its text in another way overrides the `encode_…` methods.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: its tokenizer.
        end: the text that ends an answer, one token long; None takes the tokenizer's end-of-sequence token.
        max_txt_len: most tokens of prompt text and text together.

    Raises:
        ConfigError: `end` is not one token, or there is no end-of-sequence token.

    Attributes:
        tokens_read: tokens of all sequences that a loss or likelihood was computed of, padding left out.
    """

    bos_first = True

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        end: str | None = None,
        max_txt_len: int = 32,
    ):
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer
        self.max_txt_len = max_txt_len
        self.tokens_read = 0
        self.end_token_id = end_token(tokenizer, end)
        self.freeze()

    @property
    def width(self) -> int:
        """D_l, the width of the token embeddings."""
        return self.embeddings.weight.shape[1]

    @property
    def embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    @property
    def pad_token_id(self) -> int:
        return self.end_token_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id

    @property
    def body(self) -> Any:
        """The model without its language head."""
        found = self.model.base_model
        # Gemma 3, Llama 4 and JetMoE name a base that they do not have, and give themselves
        return self.model.model if found is self.model else found

    def layers(self) -> list[nn.Module]:
        return find_layers(self.model)

    def encode_context(self, prompt: str) -> list[int]:
        """Tokens between the soft prompt and the text, without loss."""
        return self._tokenize(prompt)

    def encode_text(self, text: str, prompt: str) -> tuple[list[int], list[int]]:
        """Tokens of one training text: those without loss (its prompt) and those with loss."""
        context = self.encode_context(prompt)
        room = self.max_txt_len - len(context) - 1
        if room < 1:
            raise self.no_room(prompt)
        return context, [*self._tokenize(spaced(text, prompt))[:room], self.end_token_id]

    def no_room(self, prompt: str) -> ConfigError:
        """The error of a prompt that leaves nothing of `max_txt_len` for a text."""
        return ConfigError(
            f"model.max_txt_len: {self.max_txt_len} tokens leave no room for a text after the prompt {prompt[:40]!r}, "
            f"which has {len(self.encode_context(prompt))}"
        )

    def encode_answer(self, answer: str, question: str) -> list[int]:
        """Tokens of an answer after a question, its end token included.

        Unlike a caption, an answer is never cut short by the length of what stands before it.
        """
        return [*self._tokenize(spaced(answer, question))[: self.max_txt_len - 1], self.end_token_id]

    def target_logits(
        self, prompt_embeds: Tensor, pairs: Sequence[tuple[list[int], list[int]]]
    ) -> tuple[Tensor, Tensor]:
        """For (context, target) ids, K target ids in all: the targets' logits [K, V] in fp32, and the targets [K]."""
        device = prompt_embeds.device
        ids, mask = padded([[*context, *target] for context, target in pairs], self.pad_token_id, device)
        embeds, _ = self.sequence(prompt_embeds, ids, mask)
        ahead = embeds.shape[1] - ids.shape[1]
        self.tokens_read += sum(ahead + len(context) + len(target) for context, target in pairs)
        # no mask: padding stands on the right, where causal attention never looks
        hidden = self.body(inputs_embeds=embeds, use_cache=False)[0]
        # a position predicts the next token: logits only where that token counts, never for the soft prompt
        counted = [
            (row, ahead - 1 + len(context) + place)
            for row, (context, target) in enumerate(pairs)
            for place in range(len(target))
        ]
        # places, not a mask: how many they are is known without looking into a tensor
        rows, places = torch.tensor(counted, dtype=torch.long, device=device).view(-1, 2).unbind(dim=1)
        targets = torch.tensor([id for _, target in pairs for id in target], dtype=torch.long, device=device)
        return self.logits(hidden[rows, places]).float(), targets

    def sequence(self, prompt_embeds: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """``[bos][soft prompt][ids]`` as embeddings [B, N, D_l] of the model's dtype, and the attention mask [B, N]."""
        table = self.embeddings
        parts = [prompt_embeds.to(table.weight.dtype), table(ids)]
        ahead = prompt_embeds.shape[1]
        if self.bos_first and self.tokenizer.bos_token_id is not None:
            bos = torch.full((len(ids), 1), self.tokenizer.bos_token_id, device=ids.device)
            parts.insert(0, table(bos))
            ahead += 1
        return torch.cat(parts, dim=1), torch.cat([mask.new_ones(len(ids), ahead), mask], dim=1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Final hidden states [K, D_l] to logits [K, V], with what some families do to them besides the matrix."""
        logits = self.model.get_output_embeddings()(hidden)
        config = self.model.config
        if getattr(config, "logits_scaling", None):  # Granite
            logits = logits / config.logits_scaling
        for key in ("logit_scale", "lm_head_multiplier"):  # Cohere; Falcon H1
            if getattr(config, key, None):
                logits = logits * getattr(config, key)
        if getattr(config, "final_logit_softcapping", None):  # Gemma 2
            logits = torch.tanh(logits / config.final_logit_softcapping) * config.final_logit_softcapping
        return logits

    def _tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

"""The language model: soft prompt and texts to a loss, soft prompt to texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lavis_evlgen.models.answer_scoring import AnswerScoring
from lavis_evlgen.models.frozen import Frozen
from lavis_evlgen.models.layers import find_layers


class LanguageModel(AnswerScoring, Frozen):
    """A frozen causal language model behind a soft prompt. This class serves any of Hugging Face's.

    The sequence is ``[bos][soft prompt][prompt text][text][end]``; the loss covers text and end. A subclass states how
    another family wants its text by overriding `encode_context` and `encode_text`.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: its tokenizer.
        end: the text that ends an answer; None takes the tokenizer's end-of-sequence token.
        max_txt_len: most tokens of prompt text and text together.

    Attributes:
        tokens_read: tokens of all sequences that a loss or likelihood was computed of, padding left out.
    """

    repetition_penalty = 1.0
    bos_first = True
    entrances = ("loss", "log_likelihood", "generate", "sample", "answer_loss", "rank")

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
        if end is None:
            self.end_token_id = tokenizer.eos_token_id
        else:
            self.end_token_id = tokenizer(end, add_special_tokens=False).input_ids[0]
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

    def layers(self) -> list[nn.Module]:
        return find_layers(self.model)

    def encode_context(self, prompt: str) -> list[int]:
        """Tokens between the soft prompt and the text, without loss."""
        return self._tokenize(prompt)

    def encode_text(self, text: str, prompt: str) -> tuple[list[int], list[int]]:
        """Tokens of one training text: those without loss (its prompt) and those with loss."""
        context = self.encode_context(prompt)
        room = max(self.max_txt_len - len(context) - 1, 0)
        # most tokenizers mark a word's beginning by its space
        joined = f" {text}" if prompt and not prompt[-1].isspace() else text
        return context, [*self._tokenize(joined)[:room], self.end_token_id]

    def loss(self, prompt_embeds: Tensor, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Tensor:
        """Mean cross-entropy over the texts' tokens.

        Args:
            prompt_embeds: the soft prompt, [B, L', D_l].
            texts: B texts.
            prompts: B prompt texts that stand before them; none by default.

        Returns:
            A scalar in fp32.
        """
        pairs = [
            self.encode_text(text, prompt) for text, prompt in zip(texts, prompts or [""] * len(texts), strict=True)
        ]
        logits, targets = self._predict(prompt_embeds, pairs)
        return F.cross_entropy(logits, targets)

    def log_likelihood(
        self,
        prompt_embeds: Tensor,
        ids: Tensor,
        prompts: Sequence[str] | None = None,
        *,
        min_new_tokens: int = 0,
        temperature: float = 1.0,
    ) -> Tensor:
        """How likely :meth:`sample` was to draw these tokens; gradients reach the soft prompt.

        Args:
            prompt_embeds: [B, L', D_l], one for each row of ids.
            ids: [B, N]; what follows an end token is padding.
            prompts: those that the ids were drawn with.
            min_new_tokens: the same.
            temperature: the same.

        Returns:
            [B] in fp32: the sum of the tokens' log-probabilities, the end token's included.
        """
        contexts = [self.encode_context(prompt) for prompt in prompts or [""] * len(ids)]
        answers = [self._until_end(row) for row in ids.tolist()]
        logits, tokens = self._predict(prompt_embeds, list(zip(contexts, answers, strict=True)))
        places = [place for answer in answers for place in range(len(answer))]
        early = tokens.new_tensor([k for k, place in enumerate(places) if place < min_new_tokens])
        logits = logits.index_put((early, tokens.new_tensor(self.end_token_id)), logits.new_tensor(-math.inf))
        log_probs = -F.cross_entropy(logits / temperature, tokens, reduction="none")
        return torch.stack([part.sum() for part in log_probs.split([len(answer) for answer in answers])])

    @torch.no_grad()
    def generate(
        self,
        prompt_embeds: Tensor,
        prompts: Sequence[str] | None = None,
        *,
        max_new_tokens: int = 30,
        min_new_tokens: int = 0,
        num_captions: int = 1,
        **options: Any,
    ) -> list[str]:
        """Continue soft prompt and prompt texts.

        Args:
            prompt_embeds: [B, L', D_l].
            prompts: B prompt texts; none by default.
            max_new_tokens: most tokens of an answer before its end token.
            min_new_tokens: fewest of them.
            num_captions: answers per soft prompt.
            options: further arguments of Hugging Face's ``generate`` (num_beams, do_sample, top_p, …).

        Returns:
            B * num_captions texts, those of one soft prompt next to each other.
        """
        options.setdefault("repetition_penalty", self.repetition_penalty)
        tokens = self._continue(
            prompt_embeds,
            prompts,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            num_return_sequences=num_captions,
            **options,
        )
        return self.decode(tokens)

    @torch.no_grad()
    def sample(
        self,
        prompt_embeds: Tensor,
        prompts: Sequence[str] | None = None,
        *,
        max_new_tokens: int = 30,
        min_new_tokens: int = 0,
        num_samples: int = 1,
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw continuations with torch's global generator, from all tokens and without a repetition penalty.

        Args:
            prompt_embeds: [B, L', D_l].
            prompts: B prompt texts; none by default.
            max_new_tokens: most tokens of an answer before its end token.
            min_new_tokens: fewest of them.
            num_samples: draws per soft prompt.
            temperature: the logits are divided by it.

        Returns:
            [B * num_samples, N] token ids, those of one soft prompt next to each other; an end token, where one was
            drawn, is followed by padding. :meth:`decode` makes texts of them.
        """
        # a model's own generation_config may say otherwise of any of these
        plain = {"num_beams": 1, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
        return self._continue(
            prompt_embeds,
            prompts,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            num_return_sequences=num_samples,
            do_sample=True,
            temperature=float(temperature),
            remove_invalid_values=True,  # after an overflow it is the loss that must not be finite, not the drawing
            **plain,
        )

    def decode(self, tokens: Tensor) -> list[str]:
        """Token ids [B, T] to texts; everything from the end token on is dropped."""
        rows = [[id for id in self._until_end(row) if id != self.end_token_id] for row in tokens.tolist()]
        return [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]

    def _predict(self, prompt_embeds: Tensor, pairs: Sequence[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
        """For (context, target) ids, K target ids in all: their logits [K, V] in fp32, row by row, and they [K]."""
        device = prompt_embeds.device
        ids, mask = _pad([[*context, *target] for context, target in pairs], self.pad_token_id, device)
        embeds, _ = self._sequence(prompt_embeds, ids, mask)
        ahead = embeds.shape[1] - ids.shape[1]
        self.tokens_read += sum(ahead + len(context) + len(target) for context, target in pairs)
        # no mask: padding stands on the right, where causal attention never looks
        hidden = self.model.base_model(inputs_embeds=embeds, use_cache=False)[0]
        # a position predicts the next token: logits only where that token counts, never for the soft prompt
        counted = [
            (row, ahead - 1 + len(context) + place)
            for row, (context, target) in enumerate(pairs)
            for place in range(len(target))
        ]
        # places, not a mask: how many they are is known without looking into a tensor
        rows, places = torch.tensor(counted, dtype=torch.long, device=device).view(-1, 2).unbind(dim=1)
        targets = torch.tensor([id for _, target in pairs for id in target], dtype=torch.long, device=device)
        return self._logits(hidden[rows, places]).float(), targets

    def _continue(self, prompt_embeds: Tensor, prompts: Sequence[str] | None, **options: Any) -> Any:
        """Hugging Face's ``generate`` after soft prompts and prompt texts; what it returns holds new tokens only."""
        contexts = [self.encode_context(prompt) for prompt in prompts or [""] * len(prompt_embeds)]
        ids, mask = _pad(contexts, self.pad_token_id, prompt_embeds.device)
        embeds, mask = self._sequence(prompt_embeds, ids, mask)
        # padding goes to the very left: after an empty context generation must go on from the soft prompt
        gaps = (1 - mask).sum(dim=1, keepdim=True)
        places = (torch.arange(mask.shape[1], device=mask.device) - gaps) % mask.shape[1]
        rows = torch.arange(len(mask), device=mask.device)[:, None]
        return self.model.generate(
            inputs_embeds=embeds[rows, places],
            attention_mask=mask[rows, places],
            eos_token_id=self.end_token_id,
            pad_token_id=self.pad_token_id,
            synced_gpus=self.sharded,  # a process whose texts have ended goes on until all have
            **options,
        )

    def _until_end(self, row: list[int]) -> list[int]:
        """The row up to its first end token, that included."""
        return row[: row.index(self.end_token_id) + 1] if self.end_token_id in row else row

    def _tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _sequence(self, prompt_embeds: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """[bos][soft prompt][ids] as embeddings [B, N, D_l] in the model's dtype, and its attention mask [B, N]."""
        table = self.embeddings
        parts = [prompt_embeds.to(table.weight.dtype), table(ids)]
        ahead = prompt_embeds.shape[1]
        if self.bos_first and self.tokenizer.bos_token_id is not None:
            bos = torch.full((len(ids), 1), self.tokenizer.bos_token_id, device=ids.device)
            parts.insert(0, table(bos))
            ahead += 1
        return torch.cat(parts, dim=1), torch.cat([mask.new_ones(len(ids), ahead), mask], dim=1)

    def _logits(self, hidden: Tensor) -> Tensor:
        """Final hidden states [K, D_l] to logits [K, V], with what some families do to them besides the matrix."""
        logits = self.model.get_output_embeddings()(hidden)
        config = self.model.config
        if getattr(config, "logits_scaling", None):  # Granite
            logits = logits / config.logits_scaling
        if getattr(config, "logit_scale", None):  # Cohere
            logits = logits * config.logit_scale
        if getattr(config, "final_logit_softcapping", None):  # Gemma 2
            logits = torch.tanh(logits / config.final_logit_softcapping) * config.final_logit_softcapping
        return logits


def _pad(rows: Sequence[Sequence[int]], value: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as one [B, T] tensor, filled up on the right, and the mask of its real places."""
    length = max(map(len, rows), default=0)
    padded = [[*row, *[value] * (length - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
    shape = (len(rows), length)
    return (
        torch.tensor(padded, dtype=torch.long, device=device).view(shape),
        torch.tensor(mask, dtype=torch.long, device=device).view(shape),
    )

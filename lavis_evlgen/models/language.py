"""The language model: soft prompt and texts to a loss, soft prompt to texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_evlgen.models.answer_scoring import AnswerScoring
from lavis_evlgen.models.tokens import padded


class LanguageModel(AnswerScoring):
    """A frozen causal language model behind a soft prompt. This class serves any of Hugging Face's.

    Arguments and sequence are those of :class:`SoftPrompted`; the loss covers text and end.
    """

    repetition_penalty = 1.0
    entrances = ("loss", "log_likelihood", "generate", "sample", "answer_loss", "rank")

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
        logits, targets = self.target_logits(prompt_embeds, pairs)
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
        logits, tokens = self.target_logits(prompt_embeds, list(zip(contexts, answers, strict=True)))
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

    def _continue(self, prompt_embeds: Tensor, prompts: Sequence[str] | None, **options: Any) -> Any:
        """Hugging Face's ``generate`` after soft prompts and prompt texts; what it returns holds new tokens only."""
        contexts = [self.encode_context(prompt) for prompt in prompts or [""] * len(prompt_embeds)]
        ids, mask = padded(contexts, self.pad_token_id, prompt_embeds.device)
        embeds, mask = self.sequence(prompt_embeds, ids, mask)
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

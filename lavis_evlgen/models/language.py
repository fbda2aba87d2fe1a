"""The language model: soft prompt and texts to a loss, soft prompt to texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.frozen import Frozen
from lavis_evlgen.models.hub import load_pretrained, parse_precision

IGNORED = -100  # the target that cross-entropy leaves out


class LanguageModel(Frozen):
    """A frozen causal language model behind a soft prompt. This class serves any of Hugging Face's.

    The sequence is [bos][soft prompt][prompt text][text][end]; the loss covers text and end. A subclass states how
    another family wants its text by overriding `encode_context` and `encode_text`.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: its tokenizer.
        end: the text that ends an answer; None takes the tokenizer's end-of-sequence token.
        max_txt_len: most tokens of prompt text and text together.
    """

    repetition_penalty = 1.0
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
        device = prompt_embeds.device
        ids, mask = _pad([[*context, *target] for context, target in pairs], self.pad_token_id, device)
        targets, _ = _pad([[IGNORED] * len(context) + target for context, target in pairs], IGNORED, device)

        embeds, _ = self._sequence(prompt_embeds, ids, mask)
        # no mask: padding stands on the right, where causal attention never looks
        hidden = self.model.base_model(inputs_embeds=embeds, use_cache=False)[0]
        # a position predicts the next token: logits only where that token counts, never for the soft prompt
        hidden = hidden[:, -ids.shape[1] - 1 : -1]
        counted = targets != IGNORED
        return F.cross_entropy(self._logits(hidden[counted]).float(), targets[counted])

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
            max_new_tokens, min_new_tokens: bounds on the tokens of an answer before its end token.
            num_captions: answers per soft prompt.
            options: further arguments of Hugging Face's ``generate`` (num_beams, do_sample, top_p, …).

        Returns:
            B * num_captions texts, those of one soft prompt next to each other.
        """
        contexts = [self.encode_context(prompt) for prompt in prompts or [""] * len(prompt_embeds)]
        ids, mask = _pad(contexts, self.pad_token_id, prompt_embeds.device, left=True)
        embeds, attention_mask = self._sequence(prompt_embeds, ids, mask)
        options.setdefault("repetition_penalty", self.repetition_penalty)
        tokens = self.model.generate(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            num_return_sequences=num_captions,
            eos_token_id=self.end_token_id,
            pad_token_id=self.pad_token_id,
            **options,
        )
        return self.decode(tokens)

    def decode(self, tokens: Tensor) -> list[str]:
        """Token ids [B, T] to texts; everything from the end token on is dropped."""
        rows = [row[: row.index(self.end_token_id)] if self.end_token_id in row else row for row in tokens.tolist()]
        return [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]

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


class OPT(LanguageModel):
    """OPT as BLIP-2 and EVLGen use it: ``[soft prompt]</s>text\\n``, with loss on ``</s>`` unless there is a prompt."""

    bos_first = False

    def encode_context(self, prompt: str) -> list[int]:
        return self.tokenizer(prompt).input_ids

    def encode_text(self, text: str, prompt: str) -> tuple[list[int], list[int]]:
        # as in BLIP-2, the prompt is part of the text (a processor puts it there) and only masked here
        ids = self.tokenizer(text + "\n", truncation=True, max_length=self.max_txt_len).input_ids
        length = len(self.encode_context(prompt)) if prompt else 0
        return ids[:length], ids[length:]


class Vicuna(LanguageModel):
    """Vicuna as EVLGen uses it: ``[soft prompt]</s>prompt``, then ``text</s>`` with loss; repetition is penalised.

    The tokenizer gets the official special tokens: a new ``[PAD]`` (the embeddings grow by one row), and
    bos = eos = unk = ``</s>``.

    Args:
        max_txt_len: most tokens of the prompt text.
        max_output_txt_len: most tokens of the text, its end token included.
    """

    repetition_penalty = 1.5
    bos_first = False

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        max_txt_len: int = 32,
        max_output_txt_len: int = 32,
    ):
        specials = {"pad_token": "[PAD]", "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>"}
        tokenizer.add_special_tokens(specials)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        super().__init__(model, tokenizer, max_txt_len=max_txt_len)
        self.max_output_txt_len = max_output_txt_len

    def encode_context(self, prompt: str) -> list[int]:
        return self.tokenizer(prompt, truncation=True, max_length=self.max_txt_len).input_ids

    def encode_text(self, text: str, prompt: str) -> tuple[list[int], list[int]]:
        ids = self.tokenizer(
            text + self.tokenizer.eos_token, truncation=True, max_length=self.max_output_txt_len
        ).input_ids
        return self.encode_context(prompt), ids[1:]  # the text follows the prompt's bos


def build_language_model(
    kind: str,
    name: str,
    *,
    llm_precision: str = "fp16",
    max_txt_len: int = 32,
    max_output_txt_len: int = 32,
    end: str | None = None,
) -> LanguageModel:
    """Load a frozen language model with its tokenizer.

    Args:
        kind: opt, vicuna or any.
        name: a folder or name for Hugging Face, or ``embedded:…``.
        llm_precision: fp16, bf16 or fp32.
        max_txt_len, max_output_txt_len, end: see the classes.

    Raises:
        ConfigError: unknown kind. WeightsError: nothing to load under that name.
    """
    key = "opt_model" if kind == "opt" else "llm_model"
    dtype = parse_precision(llm_precision, "llm_precision")
    tokenizer = load_pretrained(AutoTokenizer.from_pretrained, name, key, use_fast=kind == "any")
    model = load_pretrained(AutoModelForCausalLM.from_pretrained, name, key, torch_dtype=dtype)
    if kind == "opt":
        return OPT(model, tokenizer, end="\n", max_txt_len=max_txt_len)
    if kind == "vicuna":
        return Vicuna(model, tokenizer, max_txt_len=max_txt_len, max_output_txt_len=max_output_txt_len)
    if kind == "any":
        return LanguageModel(model, tokenizer, end=end, max_txt_len=max_txt_len)
    raise ConfigError(f"llm: {kind!r} is unknown; choose opt, vicuna or any")


def _pad(rows: Sequence[Sequence[int]], value: int, device: torch.device, left: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of ids as one [B, T] tensor, and the mask of its real places."""
    length = max(map(len, rows), default=0)
    padded, mask = [], []
    for row in rows:
        gap = length - len(row)
        padded.append([value] * gap + list(row) if left else list(row) + [value] * gap)
        mask.append([0] * gap + [1] * len(row) if left else [1] * len(row) + [0] * gap)
    shape = (len(rows), length)
    return (
        torch.tensor(padded, dtype=torch.long, device=device).view(shape),
        torch.tensor(mask, dtype=torch.long, device=device).view(shape),
    )

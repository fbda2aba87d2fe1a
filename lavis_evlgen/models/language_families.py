"""Families of language models that want their text in a way of their own, and how one is built by name."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.hub import load_pretrained, parse_precision
from lavis_evlgen.models.language import LanguageModel
from lavis_evlgen.models.layers import checkpoint_layers, find_layers
from lavis_evlgen.models.tokens import shared_start, spaced


class OPT(LanguageModel):
    """OPT as BLIP-2 and EVLGen use it: ``[soft prompt]</s>text\\n``, with loss on ``</s>`` unless there is a prompt.

    A prompt is part of the text, without loss; a text that does not begin with it gets it.
    """

    bos_first = False

    def encode_context(self, prompt: str) -> list[int]:
        return self.tokenizer(prompt).input_ids

    def encode_text(self, text: str, prompt: str) -> tuple[list[int], list[int]]:
        if not prompt:
            return [], self._with_end(text)
        # in BLIP-2's files a processor has put the prompt before the text
        ids = self._with_end(text if text.startswith(prompt) else f"{prompt}{spaced(text, prompt)}")
        context = shared_start(ids, self.encode_context(prompt))
        if len(context) == len(ids):
            raise self.no_room(prompt)
        return context, ids[len(context) :]

    def _with_end(self, text: str) -> list[int]:
        return self.tokenizer(text + "\n", truncation=True, max_length=self.max_txt_len).input_ids


class Vicuna(LanguageModel):
    """Vicuna as EVLGen uses it: ``[soft prompt]</s>prompt``, then ``text</s>`` with loss; repetition is penalised.

    The tokenizer gets the official special tokens: a new ``[PAD]`` (the embeddings grow by one row), and
    bos = eos = unk = ``</s>``.

    Args:
        max_txt_len: most tokens of the prompt text before a caption; a question is never cut.
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
        return self.tokenizer(prompt).input_ids

    def encode_text(self, text: str, prompt: str) -> tuple[list[int], list[int]]:
        return self.encode_context(prompt)[: self.max_txt_len], self.encode_answer(text, prompt)

    def encode_answer(self, answer: str, question: str) -> list[int]:
        text = answer + self.tokenizer.eos_token
        ids = self.tokenizer(text, truncation=True, max_length=self.max_output_txt_len).input_ids
        return ids[1:]  # the text follows the prompt's bos


def build_language_model(
    kind: str,
    name: str,
    *,
    llm_precision: str = "fp16",
    llm_grad_checkpoint: bool = False,
    max_txt_len: int = 32,
    max_output_txt_len: int = 32,
    end: str | None = None,
) -> LanguageModel:
    """Load a frozen language model with its tokenizer.

    Args:
        kind: opt, vicuna or any.
        name: a folder or name for Hugging Face, or ``embedded:…``.
        llm_precision: fp16, bf16 or fp32.
        llm_grad_checkpoint: keep the activations of one layer at a time in training.
        max_txt_len, max_output_txt_len, end: see the classes.

    Raises:
        ConfigError: unknown kind, or lengths that leave no token beside the one that begins or ends a text.
        WeightsError: nothing to load under that name.
    """
    for limit, length in (("max_txt_len", max_txt_len), ("max_output_txt_len", max_output_txt_len)):
        if length < 2:
            raise ConfigError(f"model.{limit}: {length} tokens hold no text; give at least 2")
    key = "opt_model" if kind == "opt" else "llm_model"
    dtype = parse_precision(llm_precision, "llm_precision")
    tokenizer = load_pretrained(AutoTokenizer.from_pretrained, name, key, use_fast=kind == "any")
    model = load_pretrained(AutoModelForCausalLM.from_pretrained, name, key, torch_dtype=dtype)
    if llm_grad_checkpoint:
        checkpoint_layers(find_layers(model))
    if kind == "opt":
        return OPT(model, tokenizer, end="\n", max_txt_len=max_txt_len)
    if kind == "vicuna":
        return Vicuna(model, tokenizer, max_txt_len=max_txt_len, max_output_txt_len=max_output_txt_len)
    if kind == "any":
        return LanguageModel(model, tokenizer, end=end, max_txt_len=max_txt_len)
    raise ConfigError(f"llm: {kind!r} is unknown; choose opt, vicuna or any")

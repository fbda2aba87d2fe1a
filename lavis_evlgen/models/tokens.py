"""From texts to tokens: the one that ends an answer, texts that follow others, rows of ids as a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lavis_evlgen.errors import ConfigError


def end_token(tokenizer: PreTrainedTokenizerBase, end: str | None) -> int:
    """The id of the token that ends an answer: of the text `end`, or the tokenizer's end-of-sequence token.

    Raises:
        ConfigError: `end` is not one token, or there is no end-of-sequence token.
    """
    if end is None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                "llm_end is not set, and the tokenizer has no end-of-sequence token: set it, e.g. to '\\n'"
            )
        return int(tokenizer.eos_token_id)
    # as at the end of a word: LLaMA's tokenizer puts a token of its own before a text that stands alone
    word, ended = (tokenizer(text, add_special_tokens=False).input_ids for text in ("a", f"a{end}"))
    ids = ended[len(word) :] if ended[: len(word)] == word else tokenizer(end, add_special_tokens=False).input_ids
    if len(ids) != 1 or (ids[0] == tokenizer.unk_token_id and end != tokenizer.unk_token):
        tokens = tokenizer.convert_ids_to_tokens(ids)
        raise ConfigError(
            f"llm_end: {end!r} must be one token of this language model's tokenizer, which makes {tokens}"
        )
    return int(ids[0])


def needs_space(before: str) -> bool:
    """Whether a space must part a text from what follows: most tokenizers mark a word's beginning by it."""
    return bool(before) and not before[-1].isspace()


def spaced(text: str, before: str) -> str:
    """A text as it follows another one."""
    return f" {text}" if needs_space(before) else text


def shared_start(ids: Sequence[int], others: Sequence[int]) -> list[int]:
    """The ids before the first difference."""
    pairs = zip(ids, others, strict=False)
    return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]


def padded(rows: Sequence[Sequence[int]], value: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as one [B, T] tensor, filled up on the right, and the mask of its real places."""
    length = max(map(len, rows), default=0)
    filled = [[*row, *[value] * (length - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
    shape = (len(rows), length)
    return (
        torch.tensor(filled, dtype=torch.long, device=device).view(shape),
        torch.tensor(mask, dtype=torch.long, device=device).view(shape),
    )

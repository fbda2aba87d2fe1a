"""What question answering asks of a language model: a loss on answers alone, and how likely each of many answers is."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from lavis_evlgen.models.soft_prompted import SoftPrompted
from lavis_evlgen.models.tokens import needs_space

CHUNK = 64  # answers that share a pass; each has its own copy of the question's keys and values


class AnswerScoring(SoftPrompted):
    """The part of :class:`LanguageModel` for questions; a question is a prompt text, and its answer follows it."""

    def answer_loss(
        self, prompt_embeds: Tensor, answers: Sequence[str], questions: Sequence[str], weights: Tensor | None = None
    ) -> Tensor:
        """Mean cross-entropy over the tokens of the answers, none over those of the questions.

        Args:
            prompt_embeds: the soft prompt, [N, L', D_l], one for each answer.
            answers, questions: N texts each.
            weights: [N], how much the tokens of each answer count; all the same by default.

        Returns:
            A scalar in fp32.
        """
        targets = [self.encode_answer(*pair) for pair in zip(answers, questions, strict=True)]
        contexts = [self.encode_context(question) for question in questions]
        logits, tokens = self.target_logits(prompt_embeds, list(zip(contexts, targets, strict=True)))
        if weights is None:
            return F.cross_entropy(logits, tokens)
        lengths = torch.tensor([len(target) for target in targets], device=logits.device)
        each = weights.to(logits).repeat_interleave(lengths)
        return (F.cross_entropy(logits, tokens, reduction="none") * each).sum() / each.sum()

    @torch.no_grad()
    def rank(
        self, prompt_embeds: Tensor, questions: Sequence[str], answers: Sequence[str], keep: int | None = None
    ) -> Tensor:
        """How likely each of the answers is after each of the questions.

        Soft prompt and question pass the model once; their keys and values serve all answers. Of models that keep
        something else (state-space models, Gemma 2 in older versions of transformers) they pass with every answer.

        Args:
            prompt_embeds: the soft prompt, [B, L', D_l].
            questions: B texts.
            answers: N texts.
            keep: score only so many answers of each question, those whose first token is likeliest, as LAVIS's BLIP
                does; None scores all.

        Returns:
            [B, N] in fp32: the sum of the log-probabilities of the answer's tokens and its end token; -inf for answers
            that are not kept.
        """
        scores = torch.full((len(questions), len(answers)), -math.inf, device=prompt_embeds.device)
        encoded: dict[bool, list[Tensor]] = {}
        rounds = _most(len(questions), scores.device) if self.sharded else len(questions)
        for number in range(rounds):  # with sharded weights all processes go as often; some ask again then
            row = number % len(questions)
            question = questions[row]
            spaced = needs_space(question)  # all of the question that the answers' tokens depend on
            if spaced not in encoded:
                encoded[spaced] = [torch.tensor(self.encode_answer(a, question), device=scores.device) for a in answers]
            targets = encoded[spaced]
            first, cache = self._ask(prompt_embeds[row : row + 1], question)
            likely = first[torch.stack([target[0] for target in targets])]
            kept = likely.topk(min(keep or len(answers), len(answers))).indices
            for part in kept.split(CHUNK):
                chosen = [targets[number] for number in part.tolist()]
                if _has_copies(cache):
                    scores[row, part] = self._follow(first, cache, chosen)
                else:
                    scores[row, part] = self._ask_and_follow(prompt_embeds[row : row + 1], question, chosen)
        return scores

    def _ask(self, prompt_embeds: Tensor, question: str) -> tuple[Tensor, Any]:
        """Log-probabilities [V] of the token that follows one question, and the keys and values up to there."""
        ids = torch.tensor([self.encode_context(question)], dtype=torch.long, device=prompt_embeds.device)
        embeds, _ = self.sequence(prompt_embeds, ids, torch.ones_like(ids))
        output = self.body(inputs_embeds=embeds, use_cache=True)
        cache = getattr(output, "past_key_values", None)
        return self.logits(output[0][:, -1]).float().log_softmax(dim=-1)[0], cache

    def _follow(self, first: Tensor, cache: Any, targets: list[Tensor]) -> Tensor:
        """Log-likelihoods [N] of answers after what :meth:`_ask` gave."""
        ids = pad_sequence(targets, batch_first=True, padding_value=int(self.pad_token_id))
        past = _copies(cache, len(targets))
        # no mask: padding stands on the right, where causal attention never looks
        hidden = self.body(input_ids=ids[:, :-1], past_key_values=past, use_cache=True)[0]
        lengths = torch.tensor([len(target) for target in targets], device=ids.device)
        real = torch.arange(1, ids.shape[1], device=ids.device) < lengths[:, None]
        later = -F.cross_entropy(self.logits(hidden[real]).float(), ids[:, 1:][real], reduction="none")
        return first[ids[:, 0]].index_add(0, real.nonzero()[:, 0], later)

    def _ask_and_follow(self, prompt_embeds: Tensor, question: str, targets: list[Tensor]) -> Tensor:
        """Log-likelihoods [N] of answers to one question, which is read again for each."""
        context = self.encode_context(question)
        pairs = [(context, target.tolist()) for target in targets]
        logits, tokens = self.target_logits(prompt_embeds.expand(len(targets), -1, -1), pairs)
        each = -F.cross_entropy(logits, tokens, reduction="none")
        return torch.stack([part.sum() for part in each.split([len(target) for target in targets])])


def _most(number: int, device: torch.device) -> int:
    """The largest number of all processes."""
    most = torch.tensor(number, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def _has_copies(cache: Any) -> bool:
    """Whether a cache holds keys and values only, of any length, so that :func:`_copies` copies all of it."""
    return isinstance(cache, tuple) or type(cache) is DynamicCache


def _copies(cache: Any, times: int) -> Any:
    """Keys and values for so many equal rows; the given ones stay as they are."""
    if isinstance(cache, tuple):  # what OPT gives in older versions of transformers
        return tuple(tuple(part.repeat_interleave(times, dim=0) for part in layer) for layer in cache)
    own = copy.deepcopy(cache)
    own.batch_repeat_interleave(times)
    return own

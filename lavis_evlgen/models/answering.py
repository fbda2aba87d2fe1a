"""What question answering asks of a whole model: the loss on answers, and answers, written or chosen from a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lavis_evlgen.errors import ConfigError, nearest
from lavis_evlgen.models.language import LanguageModel
from lavis_evlgen.models.lemmatizer import lemmatize

METHODS = ("generate", "rank")


class Answering:
    """The part of :class:`EVLGen` that answers questions."""

    language: LanguageModel
    apply_lemmatizer: bool

    def soft_prompt(self, samples: dict[str, Any]) -> Tensor:
        raise NotImplementedError

    generate: Callable[..., list[str]]

    def answer_loss(self, samples: dict[str, Any]) -> Tensor:
        """Mean cross-entropy of the answers to the questions ``text_input``, over the tokens of the answers alone.

        Args:
            samples: a batch with ``text_output``, one answer a question; or, as LAVIS's VQA data sets give them, with
                ``answer``, a flat list of several a question, ``n_answers`` [B], and their ``weight``.
        """
        questions, soft_prompt = samples["text_input"], self.soft_prompt(samples)
        if "n_answers" not in samples:
            return self.language.answer_loss(soft_prompt, samples["text_output"], questions)
        times = samples["n_answers"].to(soft_prompt.device)
        asked = [question for question, n in zip(questions, times.tolist(), strict=True) for _ in range(n)]
        return self.language.answer_loss(
            soft_prompt.repeat_interleave(times, dim=0), samples["answer"], asked, samples["weight"]
        )

    @torch.no_grad()
    def predict_answers(
        self,
        samples: dict[str, Any],
        num_beams: int = 5,
        inference_method: str = "generate",
        max_len: int = 10,
        min_len: int = 1,
        num_ans_candidates: int | None = 128,
        answer_list: Sequence[str] | None = None,
        prompt: str = "",
        length_penalty: float = 0.0,
        **kwargs: Any,
    ) -> list[str]:
        """Answer the questions `samples["text_input"]` about the images, by LAVIS's signature of this method.

        Args:
            inference_method: ``generate`` writes an answer; ``rank`` chooses the likeliest of ``answer_list``.
            num_ans_candidates: answers that are ranked, those with the likeliest first tokens; 0 or None ranks all.
            prompt: a template such as ``"Question: {} Short answer:"``; empty asks the bare question.
            length_penalty: of beam search; 0, the official code's, compares whole answers' likelihoods, below 0 prefers
                shorter ones (BLIP-2's paper: -1).

        Raises:
            ConfigError: an unknown method, or nothing to choose from.
        """
        questions = samples["text_input"]
        questions = [questions] if isinstance(questions, str) else questions
        asked = [prompt.format(question) if prompt else question for question in questions]
        if inference_method == "generate":
            answers = self.generate(
                {**samples, "prompt": asked},
                num_beams=num_beams,
                max_length=max_len,
                min_length=min_len,
                length_penalty=length_penalty,
            )
        elif inference_method == "rank":
            if not answer_list:
                raise ConfigError("inference_method: rank needs answers to choose from; give them as answer_list")
            scores = self.language.rank(self.soft_prompt(samples), asked, answer_list, num_ans_candidates or None)
            answers = [answer_list[best] for best in scores.argmax(dim=1).tolist()]
        else:
            raise ConfigError(f"inference_method: {inference_method!r} is unknown{nearest(inference_method, METHODS)}")
        return lemmatize(answers) if self.apply_lemmatizer or samples.get("apply_lemmatizer") else answers

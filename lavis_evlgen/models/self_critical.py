"""What self-critical training asks of a model: drawn captions, and the loss that a reward makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lavis_evlgen.models.language import LanguageModel
from lavis_evlgen.models.vision import VisionTower


@dataclass(frozen=True)
class Sampled:
    """Captions drawn for a batch, those of one picture next to each other.

    Attributes:
        ids: [B * num_samples, N], the tokens that were drawn; padding after an end token.
        captions: the same as texts.
        ended: whether each ended of itself, not by the limit on its length.
    """

    ids: Tensor
    captions: list[str]
    ended: list[bool]


class SelfCritical:
    """The part of :class:`EVLGen` that self-critical training uses (Rennie et al. 2017, section 3)."""

    language: LanguageModel
    vision: VisionTower
    temporal: Any

    def soft_prompt(self, samples: dict[str, Any]) -> Tensor:
        raise NotImplementedError

    def _vision_features(self, samples: dict[str, Any]) -> Tensor:
        raise NotImplementedError

    def _prompts(self, samples: dict[str, Any], batch: int) -> list[str]:
        raise NotImplementedError

    @torch.no_grad()
    def with_frozen_features(self, samples: dict[str, Any]) -> dict[str, Any]:
        """The batch with the ViT's features in place of its images, so that one pass through it serves several calls.

        Unchanged where something before `ln_vision` trains or joins frames.
        """
        if "image" not in samples or "vision_features" in samples or self.temporal is not None:
            return samples
        if not self.vision.frozen:
            return samples
        rest = {key: value for key, value in samples.items() if key != "image"}
        return {**rest, "vision_features": self._vision_features(samples)}

    @torch.no_grad()
    def sample(
        self,
        samples: dict[str, Any],
        num_samples: int = 1,
        max_length: int = 30,
        min_length: int = 1,
        temperature: float = 1.0,
    ) -> Sampled:
        """Draw captions with torch's global generator; the lengths are those of :meth:`EVLGen.generate`."""
        prompt_embeds = self.soft_prompt(samples)
        ids = self.language.sample(
            prompt_embeds,
            self._prompts(samples, len(prompt_embeds)),
            max_new_tokens=max_length,
            min_new_tokens=max(min_length - 1, 0),
            num_samples=num_samples,
            temperature=temperature,
        )
        ended = (ids == self.language.end_token_id).any(dim=1).tolist()
        return Sampled(ids, self.language.decode(ids), ended)

    def policy_loss(self, samples: dict[str, Any]) -> Tensor:
        """Minus the mean over sequences of advantage times log-likelihood, whose gradient is REINFORCE's.

        Each sequence counts by the sum over its tokens (equation 11 of Rennie et al.), whatever its length.

        Args:
            samples: a batch with ``sampled_ids`` [B * S, N], the ids of :class:`Sampled`, and ``advantage`` [B * S],
                reward minus baseline; ``min_length`` and ``temperature`` if they were drawn with others than
                :meth:`sample` has.
        """
        ids, advantage = samples["sampled_ids"], samples["advantage"]
        soft_prompt = self.soft_prompt(samples)
        times = len(ids) // len(soft_prompt)
        prompts = [each for each in self._prompts(samples, len(soft_prompt)) for _ in range(times)]
        log_likelihood = self.language.log_likelihood(
            soft_prompt.repeat_interleave(times, dim=0),
            ids,
            prompts,
            min_new_tokens=max(samples.get("min_length", 1) - 1, 0),
            temperature=samples.get("temperature", 1.0),
        )
        return -(advantage * log_likelihood).mean()

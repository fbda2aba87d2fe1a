"""What one training step of a model is, on tensors without values."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_evlgen.models.blip2_stage1 import Blip2Stage1
from lavis_evlgen.models.evlgen import EVLGen


class EVLGenStep:
    """Texts after the soft prompts of images or clips: one loss.

    Args:
        model: the model.
        text_length: tokens of each text, special ones included; the loss is on all of them.
        num_frames: of a clip; only for a model of clips.
        from_features: the frozen ViT's features come from a cache.

    Attributes:
        connector: the name of the part that gives the tokens.
        prompt_tokens: those that the language model sees before a text; known after `loss`.
    """

    connector = "connector"

    def __init__(self, model: Any, text_length: int, num_frames: int, from_features: bool):
        self.model = model
        self.text_length = text_length
        self.num_frames = num_frames if getattr(model, "temporal", None) is not None else 0
        self.from_features = from_features
        self.prompt_tokens = 0

    def pictures(self, batch: int) -> Tensor:
        """[B, 3, H, W] or [B, 3, T, H, W]."""
        frames = (self.num_frames,) if self.num_frames else ()
        return torch.empty(batch, 3, *frames, self.model.vision.image_size, self.model.vision.image_size)

    def samples(self, batch: int) -> dict[str, Any]:
        if self.from_features:
            return {"vision_features": self._features(batch)}
        return {"video" if self.num_frames else "image": self.pictures(batch)}

    def loss(self, batch: int) -> Tensor:
        """The loss of so many images."""
        prompt = self.model.soft_prompt(self.samples(batch))
        self.prompt_tokens = prompt.shape[1]
        texts: list[Any] = [([], [0] * self.text_length)] * batch
        return F.cross_entropy(*self.model.language.target_logits(prompt, texts))

    def tokens(self, batch: int) -> list[int]:
        """Visual tokens of an image, then the tokens after every layer of the connector."""
        features, connector = self._features(batch), self.model.connector
        if hasattr(connector, "reduce_by_layer"):  # its layers run by halves, with the merging between them
            layers = [tokens.shape[1] for tokens, _ in connector.reduce_by_layer(features)]
        else:
            found: list[Any] = []
            layers = _by_layer(connector, lambda: found.append(connector.reduce(features))) or [found[0][0].shape[1]]
        return [features.shape[1], *layers]

    def _features(self, batch: int) -> Tensor:
        return torch.empty(batch, self.model.vision.num_tokens, self.model.vision.num_features)


class Stage1Step(EVLGenStep):
    """BLIP-2's first stage: LAVIS's own forward with its three losses. Texts are padded to their greatest length."""

    connector = "Qformer"

    def loss(self, batch: int) -> Tensor:
        self.model.tokenizer = _Texts(self.text_length)
        return self.model({**self.samples(batch), "text_input": [""] * batch})["loss"]

    def tokens(self, batch: int) -> list[int]:
        features = self._features(batch)
        return [features.shape[1], *_by_layer(self.model.Qformer, lambda: self.model.forward_image(features))]


def step_of(model: EVLGen | Blip2Stage1, *args: Any) -> EVLGenStep:
    """The step of a model's kind; the arguments are those of :class:`EVLGenStep`."""
    return (EVLGenStep if isinstance(model, EVLGen) else Stage1Step)(model, *args)


def _by_layer(part: nn.Module, run: Any) -> list[int]:
    """The tokens that every layer of a part gives while it runs; layers are what stands in lists of modules."""
    layers = [layer for each in part.modules() if isinstance(each, nn.ModuleList) for layer in each]
    tokens: list[int] = []
    handles = [layer.register_forward_hook(lambda _m, _i, out: tokens.append(_first(out).shape[1])) for layer in layers]
    run()
    for handle in handles:
        handle.remove()
    return tokens


def _first(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else _first(outputs[0])


class _Texts:
    """A tokenizer for which every text has the same number of tokens, as LAVIS's Q-Former asks it: padded tensors."""

    bos_token_id = pad_token_id = 0

    def __init__(self, length: int):
        self.length = length

    def __call__(self, texts: list[str], **options: Any) -> _Texts:
        self.input_ids = torch.zeros(len(texts), self.length, dtype=torch.long)
        self.attention_mask = torch.ones_like(self.input_ids)
        return self

    def to(self, device: torch.device) -> _Texts:
        return self

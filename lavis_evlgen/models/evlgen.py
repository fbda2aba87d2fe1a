"""EVLGen: frozen vision tower, connector, frozen language model; one stage, one loss (EVLGen, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lavis.models.base_model import BaseModel
from lavis.models.blip2_models.blip2 import LayerNorm
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.interchange.pretrained import Interchange
from lavis_evlgen.models.answering import Answering
from lavis_evlgen.models.checkpoints import LoadsCheckpoints
from lavis_evlgen.models.config import ModelConfig
from lavis_evlgen.models.connector import Connector
from lavis_evlgen.models.connector_weights import load_connector_weights
from lavis_evlgen.models.connectors import build_connector
from lavis_evlgen.models.language import LanguageModel
from lavis_evlgen.models.language_families import build_language_model
from lavis_evlgen.models.self_critical import SelfCritical
from lavis_evlgen.models.temporal import FrameConcat, FrameMean, build_temporal
from lavis_evlgen.models.vision import VisionTower, build_vision_tower


@dataclass(frozen=True)
class Features:
    """What the parts of the path give for a batch of images or clips.

    Attributes:
        vision: [B, L, D_v], the frozen ViT's tokens after `ln_vision`.
        connector: [B, L', D], the connector's tokens.
        soft_prompt: [B, L', D_l], what the language model sees.
        source_map: [B, L], for every visual token the final token that it became part of; None for a Q-Former.

    With `temporal: concat` the frames stay apart until the soft prompt: B * T in place of B in all but the soft
    prompt, which is [B, T * L', D_l].
    """

    vision: Tensor
    connector: Tensor
    soft_prompt: Tensor
    source_map: Tensor | None


class EVLGen(Interchange, LoadsCheckpoints, SelfCritical, Answering, BaseModel):
    """Image or video to text through a soft prompt.

    Trainable: `ln_vision`, `connector`, `prompt_proj` (and `skip_proj`, and the contextualizer in `temporal`).

    Args:
        vision: images [B, 3, H, W] to tokens [B, L, D_v].
        connector: tokens [B, L, D_v] to tokens [B, L', D]; has `reduce`.
        language: soft prompt [B, L', D_l] and texts to a loss or texts.
        temporal: what makes tokens of clips [B, T, 3, H, W]; None for images only.
        prompt: text between soft prompt and caption.
        merged_skip: add a linear image of the visual tokens, merged as the connector merges its own, to the soft
            prompt; the connector's own part starts at zero. Not in the paper.
        connector_lr_scale: factor on the learning rate of the connector's layers.
        temporal_lr_scale: factor on that of what starts at zero in the contextualizer: alphas and time embeddings.
        apply_lemmatizer: lemmatise answers, as for OK-VQA.

    A batch (`samples`) is a dictionary with `image` [B, 3, H, W]; `video` [B, 3, T, H, W], LAVIS's layout, also under
    the name `image`; or `vision_features` [B, L, D_v] where the frozen ViT has run already. `text_input` (list of B
    texts) is for training and questions, `text_output` (B answers) for training on questions, `prompt` is optional.
    A video model takes images as clips of one frame.
    """

    PRETRAINED_MODEL_CONFIG_DICT: dict[str, str] = {}
    CONFIG_KEYS = ModelConfig.keys()
    language_kind: str | None = "any"
    default_temporal: str | None = None

    def __init__(
        self,
        vision: VisionTower,
        connector: Connector,
        language: LanguageModel,
        *,
        temporal: FrameMean | FrameConcat | None = None,
        prompt: str = "",
        merged_skip: bool = False,
        connector_lr_scale: float = 1.0,
        temporal_lr_scale: float = 1.0,
        apply_lemmatizer: bool = False,
    ):
        super().__init__()
        self.vision = vision
        self.temporal = temporal
        self.ln_vision = LayerNorm(vision.num_features)
        self.connector = connector
        self.prompt_proj = nn.Linear(connector.hidden_size, language.width)
        self.language = language
        self.skip_proj = self._skip() if merged_skip else None
        self.prompt = prompt
        self.connector_lr_scale = connector_lr_scale
        self.temporal_lr_scale = temporal_lr_scale
        self.apply_lemmatizer = apply_lemmatizer

    def _skip(self) -> nn.Linear:
        """The skip's linear map; the soft prompt starts as that map alone, as large as token embeddings are."""
        skip = nn.Linear(self.vision.num_features, self.language.width, bias=False)
        embeddings = self.language.embeddings.weight
        nn.init.normal_(skip.weight, std=float(embeddings.float().std()) * self.vision.num_features**-0.5)
        nn.init.zeros_(self.prompt_proj.weight)
        nn.init.zeros_(self.prompt_proj.bias)
        return skip

    def forward(self, samples: dict[str, Any]) -> dict[str, Tensor]:
        """Mean cross-entropy of `samples["text_input"]` after the images' soft prompts: ``{"loss": scalar}``.

        With `samples["sampled_ids"]` it is :meth:`policy_loss`, with `samples["text_output"]` or `samples["n_answers"]`
        :meth:`answer_loss`.
        """
        if "sampled_ids" in samples:
            return {"loss": self.policy_loss(samples)}
        if "text_output" in samples or "n_answers" in samples:
            return {"loss": self.answer_loss(samples)}
        texts = samples["text_input"]
        prompts = self._prompts(samples, len(texts))
        return {"loss": self.language.loss(self.soft_prompt(samples), texts, prompts)}

    @property
    def tokens_read(self) -> int:
        """Tokens that the language model has read for losses, soft prompts included."""
        return self.language.tokens_read

    def soft_prompt(self, samples: dict[str, Any]) -> Tensor:
        """The whole visual path: [B, L', D_l]; `samples["soft_prompt"]` where it has been computed before."""
        return samples["soft_prompt"] if "soft_prompt" in samples else self.extract_features(samples).soft_prompt

    def extract_features(self, samples: dict[str, Any]) -> Features:
        """The outputs of every part of the visual path."""
        features = self.ln_vision(self._vision_features(samples))
        tokens, reduction = self.connector.reduce(features)
        prompt = self.prompt_proj(tokens)
        if self.skip_proj is not None and reduction is not None:
            prompt = prompt + self.skip_proj(reduction.apply(features))
        if self.temporal is not None:
            prompt = self.temporal.join(prompt, _batch_size(samples))
        return Features(features, tokens, prompt, None if reduction is None else reduction.target)

    @torch.no_grad()
    def generate(
        self,
        samples: dict[str, Any],
        use_nucleus_sampling: bool = False,
        num_beams: int = 5,
        max_length: int = 30,
        min_length: int = 1,
        top_p: float = 0.9,
        repetition_penalty: float | None = None,
        length_penalty: float = 1.0,
        num_captions: int = 1,
        temperature: float = 1.0,
    ) -> list[str]:
        """Caption images.

        Args:
            samples: a batch; `samples["prompt"]`, one text or one per image, replaces the model's prompt.
            use_nucleus_sampling: sample from the `top_p` nucleus instead of beam search.
            num_beams: 1 is greedy.
            max_length: most new tokens.
            min_length: fewest new tokens, the end token counted (1 allows an empty caption).
            repetition_penalty: None takes the language model's usual one (1.0; Vicuna 1.5, as in EVLGen).
            num_captions: captions per image; with beam search at most `num_beams`.

        Returns:
            B * num_captions captions, those of one image next to each other.

        Raises:
            ConfigError: more captions than beams.
        """
        if not use_nucleus_sampling and num_captions > num_beams:
            raise ConfigError(
                f"num_captions: {num_captions} needs num_beams of at least {num_captions}, not {num_beams}"
            )
        prompt_embeds = self.soft_prompt(samples)
        options: dict[str, Any] = {"num_beams": num_beams, "do_sample": False}
        if num_beams > 1:
            options["length_penalty"] = length_penalty
        if use_nucleus_sampling:
            options = {"do_sample": True, "top_p": top_p, "temperature": temperature, "top_k": 0}
        if repetition_penalty is not None:
            options["repetition_penalty"] = repetition_penalty
        return self.language.generate(
            prompt_embeds,
            self._prompts(samples, len(prompt_embeds)),
            max_new_tokens=max_length,
            min_new_tokens=max(min_length - 1, 0),
            num_captions=num_captions,
            **options,
        )

    def optimizer_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups: biases, norms and time embeddings without decay, and each with its `lr_scale`."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                decays = parameter.ndim >= 2 and not name.endswith(".time_embedding")
                groups.setdefault((weight_decay if decays else 0.0, self._lr_scale(name)), []).append(parameter)
        return [
            {"params": parameters, "weight_decay": decay, "lr_scale": scale}
            for (decay, scale), parameters in groups.items()
        ]

    def _lr_scale(self, name: str) -> float:
        if name.startswith("connector.encoder."):
            return self.connector_lr_scale
        starts_at_zero = name.startswith("temporal.") and name.endswith((".alpha", ".time_embedding"))
        return self.temporal_lr_scale if starts_at_zero else 1.0

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """The trainable tensors by name: all that a checkpoint needs."""
        return {name: tensor.detach() for name, tensor in self.named_parameters() if tensor.requires_grad}

    @classmethod
    def from_config(cls, cfg: DictConfig | dict[str, Any]) -> EVLGen:
        """Build the model that a configuration describes, and load its checkpoint if it names one.

        Raises:
            ConfigError: a key or value is wrong. WeightsError: weights are missing or do not fit.
        """
        values: Any = OmegaConf.to_container(OmegaConf.create(cfg), resolve=True)
        config = ModelConfig.parse(values)
        vision = build_vision_tower(**config.vision())
        connector = build_connector(vision, **config.connector_options())
        language = build_language_model(**config.language(cls.language_kind))
        temporal = build_temporal(vision=vision, **config.temporal_options(cls.default_temporal))
        model = cls(vision, connector, language, temporal=temporal, **config.model())
        model.configuration = values
        if config.connector_weights:
            load_connector_weights(model, config.connector_weights)
        checkpoint = config.checkpoint()
        if checkpoint:
            model.load_checkpoint(checkpoint)
        return model

    def _vision_features(self, samples: dict[str, Any]) -> Tensor:
        if "vision_features" in samples:
            return samples["vision_features"].float()
        pictures = samples["video"] if "video" in samples else samples["image"]
        if self.temporal is None:
            if pictures.ndim != 4:
                raise ConfigError(
                    f"the batch holds clips {tuple(pictures.shape)} but this model takes images [B, 3, H, W]: use "
                    "arch: evlgen_video, or set model.temporal to contextualizer, mean or concat"
                )
            return self.vision(pictures)
        clips = pictures[:, None] if pictures.ndim == 4 else pictures.transpose(1, 2)
        return self.temporal.encode(self.vision, clips)

    def _prompts(self, samples: dict[str, Any], batch: int) -> list[str]:
        prompt = samples.get("prompt", self.prompt)
        prompts = [prompt] * batch if isinstance(prompt, str) else list(prompt)
        if len(prompts) != batch:
            raise ConfigError(f"prompt: {len(prompts)} prompts for {batch} images; give one text or one per image")
        return prompts


def _batch_size(samples: dict[str, Any]) -> int:
    return len(next(samples[key] for key in ("vision_features", "video", "image") if key in samples))

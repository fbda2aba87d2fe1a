"""What makes a LAVIS model of the ALBEF and BLIP families an ELIP model: mixins that stand before its class.

`from_config` calls LAVIS's own and then lets the online ViT reduce its tokens; `forward` computes the text's CLS, sets
it as the guide and calls LAVIS's. Parameters, their names and checkpoints are the parent's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from io import StringIO
from typing import Any

import torch
import torch.nn.functional as F
from lavis.common.utils import is_url
from omegaconf import OmegaConf
from torch import Tensor, nn

from lavis_evlgen.configuration.merge import merged
from lavis_evlgen.errors import ConfigError, WeightsError
from lavis_evlgen.models.elip.guidance import GUIDANCE_KEYS, Guidance, without_dropout
from lavis_evlgen.models.elip.parts import PART_KEYS, local_parts, replaced
from lavis_evlgen.models.elip.vit import TextGuidedViT
from lavis_evlgen.models.safe_loading import files_beside
from lavis_evlgen.models.vit_blocks import checkpoint_blocks

_SWITCHES = frozenset({"elip_training", "elip_inference", "use_grad_checkpoint"})


class TextGuided:
    """Mixin: text-guided reduction in a LAVIS model's online ViT.

    Attributes:
        elip_training, elip_inference: whether texts reduce the tokens in training and in eval mode.
        padding: how LAVIS's forward pads this model's texts.
        encoders_given_masks: text encoders that LAVIS gives momentum tokens (all) with masks of online ones (reduced).
    """

    EXTRA_CONFIG_KEYS = GUIDANCE_KEYS | PART_KEYS | _SWITCHES
    default_model_type: str
    elip_training = False
    elip_inference = False
    padding = "longest"
    encoders_given_masks: tuple[str, ...] = ()
    visual_encoder: Any
    text_encoder: Any
    tokenizer: Any

    @classmethod
    def from_config(cls, cfg: Any = None) -> Any:
        """Build LAVIS's model, then let texts guide it.

        Raises:
            ConfigError: a key or value is wrong. WeightsError: weights are missing or belong to another model.
        """
        with local_parts(cfg) as lavis_cfg, redirect_stdout(StringIO()):  # BLIP prints a line for every tied layer
            model = super().from_config(lavis_cfg)  # type: ignore[misc]
        model.use_guidance(
            Guidance.from_config(lavis_cfg),
            training=lavis_cfg.get("elip_training", cls.elip_training),
            inference=lavis_cfg.get("elip_inference", cls.elip_inference),
        )
        if lavis_cfg.get("use_grad_checkpoint", False):
            checkpoint_blocks(model.visual_encoder)
        return model

    @classmethod
    def from_pretrained(cls, model_type: str | None = None, **overrides: Any) -> Any:
        """The model of a model type (by default the class's usual one), with keys of its yaml replaced."""
        yaml = OmegaConf.load(cls.default_config_path(model_type or cls.default_model_type))  # type: ignore[attr-defined]
        return cls.from_config(merged(yaml.model, overrides, "model"))

    def use_guidance(self, guidance: Guidance, *, training: bool, inference: bool) -> None:
        """Let texts reduce the tokens of this built model, in training and in eval mode as asked.

        Raises:
            ConfigError: the guidance does not fit the ViT, or the text the tokenizer or the ViT's width.
        """
        self._check_vocabulary()
        self.elip_training, self.elip_inference = training, inference
        TextGuidedViT.guide_with(self.visual_encoder, guidance)
        if training or inference:
            self._check_widths()
        for name in self.encoders_given_masks:
            if hasattr(self, name):
                getattr(self, name).register_forward_pre_hook(_fit_masks, with_kwargs=True)
        if hasattr(self, "visual_encoder_m"):
            _own_forward(self.visual_encoder_m)

    def guided(self, texts: list[str]) -> AbstractContextManager[None]:
        """While active, the ViT reduces its tokens by these texts, one an image, if the present mode is to."""
        wanted = self.elip_training if self.training else self.elip_inference  # type: ignore[attr-defined]
        return self._guided(texts) if wanted else nullcontext()

    @contextmanager
    def _guided(self, texts: list[str]) -> Iterator[None]:
        with self.visual_encoder.guided_by(self.guide(self.text_cls(texts))):
            yield

    @torch.no_grad()
    def text_cls(self, texts: list[str]) -> Tensor:
        """The text encoder's last hidden state at CLS [B, D_t], for texts alone and without dropout."""
        with without_dropout([self.text_encoder]):
            return self._read(self._tokenized(texts)).last_hidden_state[:, 0]

    def guide(self, text_cls: Tensor) -> Tensor:
        """[B, D_t] -> [B, D_v]: as it is where both widths are equal, else through the heads of the contrastive loss.

        The latter is what the authors' CLIP code does: the normalised text feature times the vision head transposed.
        """
        if text_cls.shape[-1] == self.visual_encoder.vision_width:
            return text_cls
        heads: Any = self
        return F.normalize(heads.text_proj(text_cls), dim=-1) @ heads.vision_proj.weight

    def _tokenized(self, texts: list[str]) -> Any:
        limit = {"truncation": True, "max_length": self.max_txt_len} if hasattr(self, "max_txt_len") else {}
        tokens = self.tokenizer(list(texts), padding=self.padding, return_tensors="pt", **limit)
        return tokens.to(self.device)  # type: ignore[attr-defined]

    def _read(self, tokens: Any) -> Any:
        """The text-only pass; ALBEF's pretraining keeps its BERT inside a language model."""
        bert = getattr(self.text_encoder, "bert", self.text_encoder)
        return bert(tokens.input_ids, attention_mask=tokens.attention_mask, return_dict=True, mode="text")

    def _check_vocabulary(self) -> None:
        known = self.text_encoder.get_input_embeddings().num_embeddings
        if len(self.tokenizer) > known:
            raise ConfigError(
                f"the tokenizer has {len(self.tokenizer)} tokens, the text encoder {known}: set "
                f"model.bert_config.vocab_size to {len(self.tokenizer)} or take bert_model's own tokenizer"
            )

    def _check_widths(self) -> None:
        text, vision = self.text_encoder.config.hidden_size, self.visual_encoder.vision_width
        if text != vision and not hasattr(self, "text_proj"):
            raise ConfigError(
                f"the ViT is {vision} wide and the text encoder {text}, so the text's CLS cannot be mixed into the "
                f"ViT's, and {type(self).__name__} has no projection heads to go through: set elip_training and "
                "elip_inference to false, or take a ViT and a text encoder of the same width"
            )

    def load_checkpoint_from_config(self, cfg: Any, **kwargs: Any) -> None:
        """As LAVIS, but ``load_finetuned: false`` without a ``pretrained`` path leaves the fresh weights."""
        finetuned = cfg.get("load_finetuned", True)
        path = cfg.get("finetuned" if finetuned else "pretrained")
        if path:
            super().load_checkpoint_from_config(cfg, **kwargs)  # type: ignore[misc]
        elif finetuned:
            raise ConfigError("load_finetuned is true but finetuned is empty: give it a checkpoint, or set it to false")
        else:
            logging.info("model.pretrained is empty: the model starts from its parts' own weights")

    def load_checkpoint(self, url_or_filename: str) -> Any:
        return self._loaded(super().load_checkpoint(readable(url_or_filename)), url_or_filename)  # type: ignore[misc]

    def load_from_pretrained(self, url_or_filename: str, **kwargs: Any) -> Any:
        loaded = super().load_from_pretrained(readable(url_or_filename), **kwargs)  # type: ignore[misc]
        return self._loaded(loaded, url_or_filename)

    def _loaded(self, message: Any, source: str) -> Any:
        """LAVIS loads what fits and only logs the rest: refuse a file that belongs to another model altogether."""
        own = self.state_dict()  # type: ignore[attr-defined]
        if message is not None and 2 * len(message.missing_keys) > len(own):
            raise WeightsError(
                f"{source} has {len(own) - len(message.missing_keys)} of the {len(own)} tensors of "
                f"{type(self).__name__}, so it belongs to another model; it lacks for example {message.missing_keys[0]}"
            )
        return message


class GuidedForward(TextGuided):
    """Mixin for models whose whole forward is guided by ``samples["text_input"]``."""

    def forward(self, samples: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        with self.guided(samples["text_input"]):
            return super().forward(samples, *args, **kwargs)  # type: ignore[misc]


class SharedTextPass(GuidedForward):
    """Mixin for models whose forward passes each text alone anyway: that pass is made first, once, and is the guide.

    It is the pass with gradient and dropout of LAVIS's forward, so that a step costs and draws what the parent's does.
    """

    padding = "max_length"

    @contextmanager
    def _guided(self, texts: list[str]) -> Iterator[None]:
        tokens = self._tokenized(texts)
        output = self._read(tokens)
        guide = self.guide(output.last_hidden_state[:, 0].detach())
        with self.visual_encoder.guided_by(guide), self._text_pass_is(tokens.input_ids, output):
            yield

    @contextmanager
    def _text_pass_is(self, input_ids: Tensor, output: Any) -> Iterator[None]:
        """Let the text-only pass of these tokens give what it gave before."""
        inside = hasattr(self.text_encoder, "bert")
        owner, name = (self.text_encoder.bert, "forward") if inside else (self.text_encoder, "forward_text")
        original = getattr(owner, name)

        def remembered(*args: Any, **kwargs: Any) -> Any:
            ids = getattr(args[0], "input_ids", args[0]) if args else None
            text_only = kwargs.get("mode") == "text" or not inside
            again = text_only and isinstance(ids, Tensor) and torch.equal(ids, input_ids)
            return output if again else original(*args, **kwargs)

        with replaced(owner, name, remembered):
            yield


def _fit_masks(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Masks of visual tokens as long as these are; all of them are ones in ALBEF and BLIP."""

    def fitted(tokens: Tensor, mask: Tensor) -> Tensor:
        return mask if mask.shape == tokens.shape[:2] else mask.new_ones(tokens.shape[:2])

    tokens, masks = kwargs.get("encoder_hidden_states"), kwargs.get("encoder_attention_mask")
    if isinstance(tokens, list) and isinstance(masks, list):
        return args, {**kwargs, "encoder_attention_mask": [fitted(*each) for each in zip(tokens, masks, strict=True)]}
    if isinstance(tokens, Tensor) and isinstance(masks, Tensor):
        return args, {**kwargs, "encoder_attention_mask": fitted(tokens, masks)}
    return args, kwargs


def _own_forward(momentum: nn.Module) -> None:
    """Drop what LAVIS's activation checkpointing leaves in a copied ViT: calls into the ViT it was copied from.

    Momentum encoders have no gradient, so there is nothing to checkpoint.
    """
    for module in momentum.modules():
        vars(module).pop("forward", None)


def readable(source: str) -> str:
    """The source; WeightsError when it is neither a URL nor a file."""
    if not is_url(source) and not os.path.isfile(source):
        raise WeightsError(
            f"checkpoint {source!r}: there is no such file (looked in {os.path.abspath(source)}){files_beside(source)}"
        )
    return source

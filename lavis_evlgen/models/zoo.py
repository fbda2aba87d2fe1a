"""The registered models: one class under several names, each with its packaged configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lavis_evlgen.configuration.merge import merged
from lavis_evlgen.embedded.folders import PREFIX
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.interchange.pretrained import Interchange
from lavis_evlgen.models.blip2_stage1 import Blip2Stage1
from lavis_evlgen.models.evlgen import EVLGen
from lavis_evlgen.paths import config_path
from lavis_evlgen.registration_tools import register


def _types(**files: str) -> dict[str, str]:
    return {name: config_path("models", file) for name, file in files.items()}


class _ModelTypes(Interchange):
    default_model_type: str
    PRETRAINED_MODEL_CONFIG_DICT: dict[str, str]

    @classmethod
    def default_config_path(cls, model_type: str) -> str:
        """The packaged yaml of a model type.

        Raises:
            ConfigError: unknown model type; the message lists the known ones.
        """
        if model_type not in cls.PRETRAINED_MODEL_CONFIG_DICT:
            known = ", ".join(cls.PRETRAINED_MODEL_CONFIG_DICT)
            raise ConfigError(
                f"model_type: {model_type!r} is unknown for {cls.__name__}; choose one of {known}, the path of a "
                "model's folder, or OWNER/NAME on a hub"
            )
        return cls.PRETRAINED_MODEL_CONFIG_DICT[model_type]

    @classmethod
    def from_pretrained(
        cls: Any, model_type: str | Path | None = None, *, revision: str | None = None, **overrides: Any
    ) -> Any:
        """The model of a model type with the weights that its yaml names.

        Args:
            model_type: by default the class's `default_model_type`. A name that is none is what
                :meth:`Interchange.from_pretrained` takes: a folder, ``embedded:NAME`` or OWNER/NAME on a hub.
            revision: branch, tag or commit on the hub.
            overrides: model keys that replace the yaml's, such as ``pretrained="my.pth"`` or ``opt_model="folder"``.
        """
        model_type = str(model_type or cls.default_model_type)
        of_a_folder = model_type.startswith(PREFIX) or "/" in model_type or Path(model_type).exists()
        if of_a_folder and model_type not in cls.PRETRAINED_MODEL_CONFIG_DICT:
            return super().from_pretrained(model_type, revision=revision, **overrides)
        yaml = OmegaConf.load(cls.default_config_path(model_type))
        config: Any = merged(yaml.model, overrides, "model")
        config.load_pretrained = bool(config.get("pretrained")) and not config.get("load_finetuned")
        model = cls.from_config(config)
        if "preprocess" in yaml:
            model.preprocess = OmegaConf.to_container(yaml.preprocess, resolve=True)
        return model


class _Pretrained(_ModelTypes, EVLGen):
    """An EVLGen model with model types."""


@register("model", "evlgen_opt", "blip2_tome_opt", "liptome_opt")
class EVLGenOPT(_Pretrained):
    """EVLGen with OPT."""

    language_kind = "opt"
    default_model_type = "pretrain_opt2.7b"
    PRETRAINED_MODEL_CONFIG_DICT = _types(
        **{
            "pretrain_opt2.7b": "evlgen_opt2.7b.yaml",
            "pretrain_opt6.7b": "evlgen_opt6.7b.yaml",
            "pretrain_opt2.7b_55m": "evlgen_opt2.7b_55m.yaml",
            "caption_coco_opt2.7b": "evlgen_opt2.7b_coco.yaml",
            "pretrain": "evlgen_opt2.7b.yaml",
        }
    )


@register("model", "evlgen_vicuna", "blip2_tome_vicuna", "liptome_vicuna")
class EVLGenVicuna(_Pretrained):
    """EVLGen with Vicuna."""

    language_kind = "vicuna"
    default_model_type = "pretrain_vicuna7b"
    PRETRAINED_MODEL_CONFIG_DICT = _types(
        pretrain_vicuna7b="evlgen_vicuna7b.yaml",
        pretrain_vicuna13b="evlgen_vicuna13b.yaml",
        pretrain_vicuna7b_55m="evlgen_vicuna7b_55m.yaml",
    )


@register("model", "evlgen")
class EVLGenAny(_Pretrained):
    """EVLGen with any causal language model of Hugging Face's, and any ViT."""

    default_model_type = "demo"
    PRETRAINED_MODEL_CONFIG_DICT = _types(demo="evlgen_demo.yaml", custom="evlgen_custom.yaml")


@register("model", "evlgen_video")
class EVLGenVideo(_Pretrained):
    """EVLGen for clips, with the temporal contextualizer unless the configuration says otherwise.

    The language model is the one that the configuration names: `opt_model` (OPT) or `llm_model` (Vicuna or any).
    """

    language_kind: str | None = None
    default_temporal = "contextualizer"
    default_model_type = "msrvtt"
    PRETRAINED_MODEL_CONFIG_DICT = _types(
        **{
            "msrvtt": "evlgen_video_msrvtt.yaml",
            "msvd": "evlgen_video_msvd.yaml",
            "pretrain_opt2.7b": "evlgen_video_opt2.7b.yaml",
            "pretrain_opt6.7b": "evlgen_video_opt6.7b.yaml",
            "pretrain_vicuna7b": "evlgen_video_vicuna7b.yaml",
            "pretrain_vicuna13b": "evlgen_video_vicuna13b.yaml",
            "demo": "evlgen_video_demo.yaml",
            "custom": "evlgen_video_custom.yaml",
        }
    )


@register("model", "liptome_video_opt")
class EVLGenVideoOPT(EVLGenVideo):
    """EVLGenVideo under the official name of its form with OPT."""

    language_kind = "opt"


@register("model", "liptome_video_vicuna")
class EVLGenVideoVicuna(EVLGenVideo):
    """EVLGenVideo under the official name of its form with Vicuna, also where a model type's yaml names OPT."""

    language_kind = "vicuna"
    default_model_type = "pretrain_vicuna7b"


@register("model", "blip2_stage1")
class Blip2Stage1Zoo(_ModelTypes, Blip2Stage1):
    """BLIP-2's first stage, without a language model."""

    default_model_type = "demo"
    PRETRAINED_MODEL_CONFIG_DICT = _types(demo="blip2_stage1_demo.yaml", pretrain="blip2_stage1_pretrain.yaml")

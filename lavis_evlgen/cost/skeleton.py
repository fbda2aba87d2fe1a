"""A configuration's model without its weights: its real classes, built from configurations alone."""

from __future__ import annotations

from typing import Any

from lavis.common.registry import registry
from omegaconf import DictConfig, OmegaConf
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from lavis_evlgen.configuration.merge import merged
from lavis_evlgen.cost.published import NAMES, published_config
from lavis_evlgen.cost.shapes import empty_modules
from lavis_evlgen.embedded import weights as embedded
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.blip2_stage1 import Blip2Stage1
from lavis_evlgen.models.evlgen import EVLGen
from lavis_evlgen.models.hub import without_weights

# LAVIS's own models by the one of ours that has the same parts, the keys that this needs, and what it leaves out
_LAVIS = {
    "blip2": ("blip2_stage1", {}, None),
    "blip2_feature_extractor": ("blip2_stage1", {}, None),
    "blip2_opt": (
        "evlgen_opt",
        {"connector": "qformer"},
        "LAVIS's blip2_opt computes logits at the soft prompt too, which are left out here",
    ),
    "blip2_vicuna_instruct": (
        "evlgen_vicuna",
        {"connector": "qformer"},
        "the instruction that InstructBLIP's Q-Former reads beside its queries is left out",
    ),
}
_KINDS = (EVLGen, Blip2Stage1)
_OF_WEIGHTS = {"load_pretrained": False, "load_finetuned": False, "connector_weights": None}
_ONLY_IN_LAVIS = ("qformer_text_input", "cross_attention_freq")


def model_section(config: DictConfig) -> tuple[type[nn.Module], dict[str, Any], list[str]]:
    """The class of a configuration's model, its keys with those of the model type's yaml, and notes for the reader.

    Raises:
        ConfigError: an arch or model type that is unknown, or no EVLGen and no BLIP-2 with OPT or Vicuna.
    """
    arch = config.model.get("arch")
    named = registry.get_model_class(arch)
    ours, needed, note = _LAVIS.get(arch, (arch, {}, None))
    model = registry.get_model_class(ours)
    if model is None or not issubclass(model, _KINDS):
        known = [name for name in registry.list_models() if issubclass(registry.get_model_class(name), _KINDS)]
        raise ConfigError(
            f"model.arch: {arch!r} is neither an EVLGen nor a BLIP-2 with OPT or Vicuna; "
            f"costs are known of {', '.join(sorted([*known, *_LAVIS]))}"
        )
    section: Any = config.model
    if named is not None:
        model_type = section.get("model_type") or getattr(named, "default_model_type", None)
        section = merged(OmegaConf.load(named.default_config_path(model_type)).model, section, "model")
    keys: Any = OmegaConf.to_container(section, resolve=True)
    if named is not model:
        keys = {**{key: value for key, value in keys.items() if key not in _ONLY_IN_LAVIS}, **needed}
    return model, keys, [note] if note else []


def build_skeleton(model: Any, keys: dict[str, Any]) -> EVLGen | Blip2Stage1:
    """The model that a section describes, on the meta device; `measure` runs it.

    Frozen parts that the configuration wants in fp16 are in bf16, which is as large and which autocast knows here.

    Raises:
        ConfigError: see `from_config` of the class; or a part whose configuration is not on this machine.
    """
    keys = {**keys, **{key: value for key, value in _OF_WEIGHTS.items() if key in keys}}
    half = {key: "bf16" for key in ("vit_precision", "llm_precision") if keys.get(key, "fp16") == "fp16"}
    if issubclass(model, Blip2Stage1):
        half.pop("llm_precision", None)
    with empty_modules(), without_weights(_from_configuration):
        return model.from_config({**keys, **half}).train()


def _from_configuration(load: Any, name: str, key: str, **kwargs: Any) -> Any:
    """What `load`, the from_pretrained of one of Hugging Face's Auto classes, gives, but without weights."""
    auto = load.__self__
    source = embedded.resolve(name)
    if auto is AutoTokenizer:
        try:
            return load(source, local_files_only=True, **kwargs)
        except (OSError, ValueError, ImportError):
            return StandInTokenizer(_configuration(source, key))
    config = kwargs.get("config") or _configuration(source, key)
    return config if auto is AutoConfig else auto.from_config(config, torch_dtype=kwargs.get("torch_dtype"))


def _configuration(name: str, key: str) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        config = published_config(name)
        if config is None:
            raise ConfigError(
                f"model.{key}: there is no configuration of {name!r} on this machine, and it is not among those known "
                f"({NAMES}). Set model.{key} to a local folder with its config.json (no weights are needed)"
            ) from error
        return config


class StandInTokenizer:
    """As much of a tokenizer as building a model asks for: how many tokens there are, and that special ones exist."""

    def __init__(self, config: PretrainedConfig):
        self._size = config.vocab_size
        self.bos_token_id = getattr(config, "bos_token_id", None)
        self.eos_token_id = self.pad_token_id = 0
        self.unk_token_id = None

    def __len__(self) -> int:
        return self._size

    def __call__(self, text: str, **options: Any) -> Any:
        # a word and what ends it are two
        return OmegaConf.create({"input_ids": [0] * min(len(text), 2)})

    def add_special_tokens(self, tokens: dict[str, str]) -> None:
        self._size += len(set(tokens.values()) - {"</s>"})  # the one that LLaMA's has already

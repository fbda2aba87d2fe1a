"""The model section of a configuration: its keys, their defaults, and which part each one is for."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from lavis_evlgen.errors import ConfigError, nearest


def check_keys(values: Iterable[str], known: Collection[str]) -> None:
    """Raise ConfigError for the first key of a model section that is not known, naming the nearest known one."""
    for key in values:
        if key not in known:
            raise ConfigError(f"model.{key} is unknown{nearest(key, known)}")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of one of the kinds of an annotation; true is no number, and lists are looked into."""
    parts = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_is_a(value, part) for part in parts)
    if get_origin(kind) is Sequence:
        return isinstance(value, list | tuple) and all(_is_a(each, parts[0]) for each in value)
    if kind in (int, float):
        return not isinstance(value, bool) and isinstance(value, int if kind is int else (int, float))
    return isinstance(value, get_origin(kind) or kind)


@dataclass
class ModelConfig:
    """Every key of the model section, with its default. Official EVLGen and BLIP-2 files use the same names."""

    arch: str | None = None
    model_type: str | None = None
    # vision
    vit_model: str = "eva_clip_g"
    vit_config: dict[str, Any] | None = None
    vit_weights: str | None = None
    image_size: int = 224
    drop_path_rate: float = 0.0
    use_grad_checkpoint: bool = False
    vit_precision: str = "fp16"
    freeze_vit: bool = True
    # frames of clips; temporal null takes the model's default: contextualizer for evlgen_video, none for the others
    num_frames: int = 4
    temporal: str | None = None
    centered: bool = False
    time_embedding: bool = False
    temporal_lr_scale: float = 1.0
    # connector
    connector: str = "tomeformer"
    bert_model: str | None = "bert-base-uncased"
    connector_config: dict[str, Any] | None = None
    num_layers: int | None = None
    num_query_token: int = 32
    linear_reduction: str = "none"
    tome_r: int | Sequence[float] = 19
    merge: str = "official"
    connector_start: str = "bert"
    merged_skip: bool = False
    connector_lr_scale: float = 1.0
    connector_weights: str | None = None  # a file whose connector and ln_vision this one starts from
    # language
    opt_model: str | None = None
    llm_model: str | None = None
    llm_family: str | None = None
    llm_precision: str = "fp16"
    llm_grad_checkpoint: bool = False
    llm_end: str | None = None
    prompt: str = ""
    max_txt_len: int = 32
    max_output_txt_len: int = 32
    apply_lemmatizer: bool = False
    # weights
    load_pretrained: bool = False
    pretrained: str | None = None
    load_finetuned: bool = False
    finetuned: str | None = None
    # in the official files; the method has one loss, so only beta = 0 is meaningful
    alpha: float = 0.0
    beta: float = 0.0

    @classmethod
    def keys(cls) -> frozenset[str]:
        return frozenset(field.name for field in fields(cls))

    @classmethod
    def parse(cls, values: dict[str, Any]) -> ModelConfig:
        """Check the keys and build the configuration; null means the default, where it has no meaning of its own.

        Raises:
            ConfigError: an unknown key (the nearest known one is named), a value of another kind, or beta above 0.
        """
        check_keys(values, cls.keys())
        kinds = get_type_hints(cls)
        given = {key: value for key, value in values.items() if value is not None or _is_a(None, kinds[key])}
        for key, value in given.items():
            if not _is_a(value, kinds[key]):
                kind = kinds[key]
                raise ConfigError(f"model.{key}: {str(value)[:60]!r}, expected {getattr(kind, '__name__', kind)}")
        config = cls(**given)
        if config.beta:
            raise ConfigError(f"model.beta: {config.beta}, but EVLGen has one loss; set beta: 0")
        return config

    def vision(self) -> dict[str, Any]:
        """Arguments of `build_vision_tower`."""
        return self._pick(
            "vit_model vit_config vit_weights image_size drop_path_rate use_grad_checkpoint vit_precision freeze_vit"
        )

    def connector_options(self) -> dict[str, Any]:
        """Arguments of `build_connector`."""
        return self._pick(
            "connector bert_model connector_config num_layers num_query_token linear_reduction tome_r merge "
            "connector_start"
        )

    def temporal_options(self, default: str | None) -> dict[str, Any]:
        """Arguments of `build_temporal` besides the vision tower."""
        return {"kind": self.temporal or default, **self._pick("num_frames centered time_embedding")}

    def language(self, kind: str | None) -> dict[str, Any]:
        """Arguments of `build_language_model`.

        Args:
            kind: the model's only kind of language model, or None where the configuration decides: `llm_family`, else
                OPT for `opt_model`, Vicuna where `llm_model` is called so, any other by its own tokenizer.

        Raises:
            ConfigError: no language model is named, or two of which nothing says which one is meant.
        """
        if not kind and not self.llm_family and self.opt_model and self.llm_model:
            raise ConfigError(
                f"model.opt_model {self.opt_model!r} and model.llm_model {self.llm_model!r} are both set (one perhaps "
                "by the model type's own file): set the one that is not meant to null"
            )
        kind = kind or self.llm_family or ("opt" if self.opt_model else "vicuna" if self._is_vicuna() else "any")
        key = "opt_model" if kind == "opt" else "llm_model"
        name = getattr(self, key)
        if not name:
            raise ConfigError(f"model.{key} is not set: name a folder or a Hugging Face model")
        options = self._pick("llm_precision llm_grad_checkpoint max_txt_len max_output_txt_len")
        return {"kind": kind, "name": name, "end": self.llm_end, **options}

    def _is_vicuna(self) -> bool:
        return "vicuna" in os.path.basename((self.llm_model or "").rstrip("/")).lower()

    def model(self) -> dict[str, Any]:
        """Arguments of `EVLGen` besides its parts."""
        if self.merged_skip and self.connector == "qformer":
            raise ConfigError("model.merged_skip: a Q-Former merges no tokens; use connector: tomeformer")
        return self._pick("prompt merged_skip connector_lr_scale temporal_lr_scale apply_lemmatizer")

    def checkpoint(self) -> str | None:
        """The checkpoint to load: `finetuned` if load_finetuned, else `pretrained` if load_pretrained, else none.

        Raises:
            ConfigError: loading is asked for but no file is named.
        """
        for asked, key in ((self.load_finetuned, "finetuned"), (self.load_pretrained, "pretrained")):
            if asked:
                path = getattr(self, key)
                if not path:
                    raise ConfigError(
                        f"model.load_{key} is true but model.{key} names no file; set it, or load_{key}: false"
                    )
                return os.path.expanduser(path)
        return None

    def _pick(self, names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names.split()}

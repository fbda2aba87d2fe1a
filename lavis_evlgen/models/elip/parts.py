"""The parts that LAVIS's builders of ALBEF and BLIP fetch by fixed names, taken from where the configuration says.

LAVIS asks for the tokenizer and BERT ``bert-base-uncased``, for DeiT's weights in pretraining, and knows two sizes of
ViT. `local_parts` lets its `from_config` run with others, without a copy of it.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lavis.common.utils import get_abs_path
from lavis.models.med import BertPreTrainedModel
from lavis.models.vit import VisionTransformer, VisionTransformerEncoder
from omegaconf import DictConfig, OmegaConf
from torch import nn
from transformers import BertConfig, BertTokenizer

from lavis_evlgen.errors import ConfigError, WeightsError, nearest
from lavis_evlgen.json_text import read_json
from lavis_evlgen.lavis_replacements import load_bert
from lavis_evlgen.models.elip.start import load_vit
from lavis_evlgen.models.hub import load_pretrained

PART_KEYS = frozenset({"tokenizer", "bert_model", "bert_config", "vit_config", "vit_weights"})

_LAVIS_BERT = "bert-base-uncased"
_VIT_WIDTHS = {"base": 768, "large": 1024}
_VIT_OPTIONS = frozenset(inspect.signature(VisionTransformer).parameters) - {"img_size", "norm_layer"}
_SET_BY_OTHER_KEYS = {"use_grad_checkpointing": "vit_grad_ckpt", "ckpt_layer": "vit_ckpt_layer"}


@contextmanager
def local_parts(cfg: Mapping[str, Any]) -> Iterator[DictConfig]:
    """While active, LAVIS's `from_config` takes the parts that `cfg` names; yields the configuration to give it.

    Keys (all optional): ``bert_model`` (folder, Hugging Face name or ``embedded:…`` of the text encoder's first
    weights; null: fresh ones), ``tokenizer`` (the same; by default that of bert_model), ``bert_config`` (fields that
    replace those of LAVIS's ``med_config_path``), ``vit_config`` (arguments of LAVIS's VisionTransformer, in place of
    ``vit_type``), ``vit_weights`` (see `start.load_vit`; null: fresh ones).

    Not for several threads at once: LAVIS's classes load differently for the time being.

    Raises:
        ConfigError, WeightsError: a key is wrong, or a part is missing.
    """
    plain: Any = OmegaConf.to_container(OmegaConf.create(dict(cfg)), resolve=True)
    bert = plain.get("bert_model", _LAVIS_BERT)
    tokenizer = plain.get("tokenizer") or bert or _LAVIS_BERT
    with ExitStack() as stack:
        plain["med_config_path"] = _bert_config_file(plain, stack.enter_context(tempfile.TemporaryDirectory()))
        for owner, name, replacement in (
            (BertTokenizer, "from_pretrained", _tokenizer_loader(tokenizer)),
            (BertPreTrainedModel, "from_pretrained", _bert_loader(bert)),
            (VisionTransformerEncoder, "from_config", _vit_builder()),
        ):
            stack.enter_context(replaced(owner, name, replacement))
        yield OmegaConf.create(plain)


def _bert_config_file(cfg: dict[str, Any], folder: str) -> str:
    """A file of the text encoder's configuration, with its keys for visual tokens as wide as the ViT."""
    named = cfg.get("med_config_path")
    if not named:
        raise ConfigError("med_config_path is missing: LAVIS's file for ALBEF is configs/models/med_config_albef.json")
    own, lavis = Path(str(named)).expanduser(), Path(get_abs_path(str(named)))
    path = own if own.is_file() else lavis
    if not path.is_file():
        raise ConfigError(f"med_config_path: there is no file {named} (looked in {Path.cwd()} and in LAVIS's folder)")
    fields = read_json(path, "LAVIS's file for ALBEF is configs/models/med_config_albef.json")
    changes = cfg.get("bert_config") or {}
    known = {*BertConfig().to_dict(), *fields, "fusion_layer"}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ConfigError(f"bert_config.{unknown[0]} is unknown{nearest(unknown[0], known)}")
    width = (cfg.get("vit_config") or {}).get("embed_dim") or _VIT_WIDTHS.get(cfg.get("vit_type", "base"))
    file = Path(folder, "med_config.json")
    file.write_text(json.dumps({**fields, "encoder_width": width, **changes}), "utf-8")
    return str(file)


def _tokenizer_loader(source: str) -> Any:
    load = BertTokenizer.from_pretrained

    def from_pretrained(cls: type, name: str, *args: Any, **kwargs: Any) -> Any:
        if name != _LAVIS_BERT:
            return load(name, *args, **kwargs)
        return load_pretrained(load, source, "tokenizer", **kwargs)

    return classmethod(from_pretrained)


def _bert_loader(source: str | None) -> Any:
    def from_pretrained(cls: Any, name: str, *args: Any, config: Any = None, **kwargs: Any) -> Any:
        if name != _LAVIS_BERT:
            return load_bert(cls, name, *args, config=config, **kwargs)
        if source is None:
            return cls(config, **kwargs)
        return load_pretrained(partial(load_bert, cls), source, "bert_model", config=config, **kwargs)

    return classmethod(from_pretrained)


def _vit_builder() -> Any:
    build: Any = VisionTransformerEncoder.from_config

    def from_config(cls: Any, cfg: Any, from_pretrained: bool = False) -> VisionTransformerEncoder:
        own_start = "vit_weights" in cfg or cfg.get("vit_config")
        try:
            encoder = _vit_of_size(cfg) if cfg.get("vit_config") else build(cfg, from_pretrained and not own_start)
        except (OSError, KeyError) as error:  # no network, or a name that timm has changed
            raise WeightsError(
                f"vit_weights: the weights that LAVIS starts pretraining from could not be fetched ({error}). Set "
                "model.vit_weights to a local copy, or to null for fresh weights"
            ) from error
        if cfg.get("vit_weights"):
            load_vit(encoder, cfg.vit_weights)
        return encoder

    return classmethod(from_config)


def _vit_of_size(cfg: Any) -> VisionTransformerEncoder:
    options: Any = OmegaConf.to_container(cfg.vit_config)
    unknown = sorted(set(options) - (_VIT_OPTIONS - set(_SET_BY_OTHER_KEYS)))
    if unknown:
        instead = _SET_BY_OTHER_KEYS.get(unknown[0])
        hint = f"; use model.{instead}" if instead else nearest(unknown[0], _VIT_OPTIONS)
        raise ConfigError(f"vit_config.{unknown[0]} is unknown{hint}")
    options = {"drop_path_rate": cfg.get("vit_drop_path_rate", 0), **options}
    epsilon = cfg.get("vit_layer_norm_epsilon", -1)
    encoder = VisionTransformerEncoder(
        img_size=cfg.get("image_size", 384),
        norm_layer=None if epsilon == -1 else partial(nn.LayerNorm, eps=epsilon),
        use_grad_checkpointing=cfg.get("vit_grad_ckpt", False),
        ckpt_layer=cfg.get("vit_ckpt_layer", 0),
        **options,
    )
    encoder.vision_width = encoder.embed_dim
    return encoder


@contextmanager
def replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """While active, the attribute of a class or object is another."""
    own = vars(owner).get(name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)  # it was a parent's
        else:
            setattr(owner, name, own)

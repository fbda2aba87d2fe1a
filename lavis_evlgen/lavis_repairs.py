"""Repairs of LAVIS 1.0.2, made from outside; LAVIS's files stay as they are.

On today's transformers its BLIP-2, BLIP and ALBEF models train and generate right, in one process without a process
group and on processors too, and files are fetched on every node. `REPAIRS` lists what is replaced by what.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lavis.common import dist_utils
from lavis.datasets.builders import base_dataset_builder
from lavis.models import med
from lavis.models.blip2_models import blip2, blip2_opt, blip2_qformer
from lavis.models.blip2_models.modeling_opt import OPTForCausalLM as LavisOPT
from lavis.models.blip_models import blip_caption, blip_pretrain, blip_vqa
from lavis.tasks.base_task import BaseTask
from torchvision.datasets.utils import download_url
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel
from transformers.generation import GenerationMixin

from lavis_evlgen import downloads
from lavis_evlgen.lavis_replacements import (
    OPTForCausalLM,
    QFormerLM,
    XBertLMHeadDecoder,
    build_datasets,
    create_clip_vit_l,
    create_eva_vit_g,
    load_bert,
    load_checkpoint_from_config,
    processes,
)
from lavis_evlgen.tasks.results import save_result


@dataclass(frozen=True)
class Repair:
    """What of LAVIS is replaced.

    Attributes:
        name: of the models or the part that it mends.
        defect: what goes wrong without it.
        replaced: (module or class, attribute, what takes its place).
        needed: whether it goes wrong here, with these versions on this machine.
    """

    name: str
    defect: str
    replaced: tuple[tuple[Any, str, Any], ...]
    needed: Callable[[], bool] = lambda: True

    def apply(self) -> None:
        for owner, attribute, replacement in self.replaced:
            setattr(owner, attribute, replacement)

    def in_force(self) -> bool:
        return all(vars(owner).get(attribute) is replacement for owner, attribute, replacement in self.replaced)


def _transformers_repeats() -> bool:
    repeated = GenerationMixin._expand_inputs_for_generation(expand_size=2, query_embeds=torch.zeros(1))[1]
    return len(repeated["query_embeds"]) == 2 or not hasattr(LavisOPT, "generate")


def _bias_is_lost() -> bool:
    size = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = BertConfig(**size, add_cross_attention=False, add_type_embeddings=True, fusion_layer=0)
    load: Any = PreTrainedModel.from_pretrained
    with tempfile.TemporaryDirectory() as folder:
        saved: Any = BertForMaskedLM(BertConfig(**size))
        saved.save_pretrained(folder)
        return load.__func__(med.BertForMaskedLM, folder, config=config).cls.predictions.decoder.bias.is_meta


def _imported_by_lavis(function: Any, replacement: Any) -> tuple[tuple[Any, str, Any], ...]:
    """A function in every module of LAVIS that has imported it."""
    name = function.__name__
    modules = [module for path, module in sys.modules.items() if path.startswith("lavis.")]
    return tuple((module, name, replacement) for module in modules if vars(module).get(name) is function)


REPAIRS = (
    Repair(
        "blip2_opt",
        "beam search and several captions fail, since transformers repeats the soft prompt again",
        ((blip2_opt, "OPTForCausalLM", OPTForCausalLM),),
        _transformers_repeats,
    ),
    Repair(
        "blip2",
        "its language head has a bias without storage, and writes no captions",
        ((blip2, "BertLMHeadModel", QFormerLM),),
        _bias_is_lost,
    ),
    Repair(
        "blip2 alone",
        "it trains in a process group only",
        (
            (blip2_qformer, "dist", processes),
            (blip2_qformer, "concat_all_gather", processes.concat_all_gather),
            (blip2_qformer, "all_gather_with_grad", processes.all_gather_with_grad),
        ),
    ),
    Repair(
        "half precision",
        "BLIP-2's ViTs and OPT are built in fp16 where no GPU is",
        ((blip2, "create_eva_vit_g", create_eva_vit_g), (blip2, "create_clip_vit_L", create_clip_vit_l)),
        lambda: not torch.cuda.is_available(),
    ),
    Repair(
        "pretrained: null",
        "BLIP-2 models cannot start from what their parts bring along",
        ((blip2.Blip2Base, "load_checkpoint_from_config", load_checkpoint_from_config),),
    ),
    Repair(
        "albef_pretrain, albef_vqa, blip_pretrain",
        "their language heads have a bias without storage, and no step can be trained",
        ((med.BertPreTrainedModel, "from_pretrained", classmethod(load_bert)),),
        _bias_is_lost,
    ),
    Repair(
        "albef_pretrain, alpro_retrieval",
        "they ask numpy for Inf, which it calls inf since version 2",
        ((np, "Inf", np.inf),),
        lambda: int(np.__version__.split(".")[0]) >= 2,
    ),
    Repair(
        "blip_caption, blip_vqa",
        "beam search fails, since transformers repeats the picture again",
        tuple((module, "XBertLMHeadDecoder", XBertLMHeadDecoder) for module in (blip_caption, blip_pretrain, blip_vqa)),
        _transformers_repeats,
    ),
    Repair(
        "downloads",
        "nodes without rank 0 and without a shared disk get no files, and half a file counts as whole",
        (
            *_imported_by_lavis(dist_utils.download_cached_file, downloads.download_cached_file),
            *_imported_by_lavis(download_url, downloads.download_url),
            (base_dataset_builder.BaseDatasetBuilder, "build_datasets", build_datasets),
        ),
    ),
    Repair(
        "results",
        "a full disk leaves empty results without an error, and ranks of other machines are not found",
        ((BaseTask, "save_result", staticmethod(save_result)),),
    ),
)


def repair() -> None:
    """Put all of `REPAIRS` into force; harmless when repeated."""
    for each in REPAIRS:
        each.apply()

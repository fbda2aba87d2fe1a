"""Repairs of LAVIS 1.0.2, made from outside; LAVIS's files stay as they are.

On today's transformers its BLIP-2, BLIP and ALBEF models train and generate right, in one process without a process
group and on processors too, and files are fetched on every node. `REPAIRS` lists what is replaced by what.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lavis.common import dist_utils
from lavis.datasets.builders import base_dataset_builder
from lavis.models import base_model, clip_vit, eva_vit, med
from lavis.models.blip2_models import blip2, blip2_opt, blip2_qformer
from lavis.models.blip2_models.modeling_opt import OPTForCausalLM as LavisOPT
from lavis.models.blip2_models.Qformer import BertLMHeadModel
from lavis.models.blip_models import blip_caption, blip_pretrain, blip_vqa
from lavis.tasks.base_task import BaseTask
from torch import Tensor
from torchvision.datasets.utils import download_url
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel
from transformers.generation import GenerationMixin

from lavis_evlgen import downloads
from lavis_evlgen.tasks.results import save_result

_REPEATED_BY_LAVIS = ("query_embeds", "encoder_hidden_states", "encoder_attention_mask")


class _Repeats:
    """Mixin for models whose pictures LAVIS repeats for beams and captions itself.

    Since 4.28 transformers repeats every tensor, those too; since 4.52 models no longer inherit `generate`.
    """

    @staticmethod
    def _expand_inputs_for_generation(
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.LongTensor, dict[str, Any]]:
        repeated = {name: kwargs.pop(name) for name in _REPEATED_BY_LAVIS if name in kwargs}
        input_ids, kwargs = GenerationMixin._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
        )
        return input_ids, {**kwargs, **repeated}


class OPTForCausalLM(_Repeats, LavisOPT, GenerationMixin):
    """LAVIS's OPT, as its blip2_opt model uses it, on today's transformers and on processors."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """LAVIS asks for half precision wherever it runs; without a GPU it is fp32."""
        if kwargs.get("torch_dtype") is torch.float16 and not torch.cuda.is_available():
            kwargs["torch_dtype"] = torch.float32
        return super().from_pretrained(*args, **kwargs)


class _BertWriter(_Repeats):
    """Mixin for LAVIS's BERTs, which know kept keys and values by a name that transformers has given up."""

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """LAVIS's own, without keeping keys and values."""
        own: Any = super()
        return {**own.prepare_inputs_for_generation(*args, **kwargs), "use_cache": False}


class QFormerLM(_BertWriter, BertLMHeadModel, GenerationMixin):
    """LAVIS's Q-Former with its language head, trained and writing captions on today's transformers.

    The head's bias is one parameter under two names: `from_pretrained` leaves the decoder's without any storage, and a
    grown vocabulary leaves the other one behind.
    """

    def tie_weights(self) -> None:
        super().tie_weights()
        head = self.cls.predictions
        if head.decoder.bias.is_meta:
            head.decoder.bias = head.bias
        else:
            head.bias = head.decoder.bias


class XBertLMHeadDecoder(_BertWriter, med.XBertLMHeadDecoder, GenerationMixin):
    """The text decoder of LAVIS's BLIP, writing captions and answers on today's transformers."""


def load_bert(cls: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
    """`from_pretrained` of the BERTs in LAVIS's ALBEF and BLIP, with the bias of their language head.

    It is one parameter under two names; transformers leaves the decoder's without storage, and both without values
    where the file has none.
    """
    load: Any = PreTrainedModel.from_pretrained
    model, found = load.__func__(cls, *args, output_loading_info=True, **kwargs)
    if hasattr(model, "cls"):
        head = model.cls.predictions
        if "cls.predictions.bias" in found["missing_keys"]:
            torch.nn.init.zeros_(head.bias)
        head.decoder.bias = head.bias
    return (model, found) if output_loading_info else model


class Processes:
    """What `blip2_qformer` asks of torch.distributed, answered also where there is no process group."""

    def __init__(self) -> None:
        self._apart = False

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within it every process is alone: nothing is gathered, so that the others need not take part."""
        before, self._apart = self._apart, True
        try:
            yield
        finally:
            self._apart = before

    @property
    def _alone(self) -> bool:
        return self._apart or dist_utils.get_world_size() == 1

    def sizes(self, size: int, device: torch.device) -> list[int]:
        """What every process gives as `size`, in the order of ranks. All must call it."""
        return self.concat_all_gather(torch.tensor([size], device=device)).tolist()

    def get_rank(self) -> int:
        return 0 if self._alone else dist_utils.get_rank()

    def concat_all_gather(self, tensor: Tensor) -> Tensor:
        # detached as what LAVIS gathers in a group of one; without a group LAVIS would let gradient through
        return tensor.detach() if self._alone else base_model.concat_all_gather(tensor)

    def all_gather_with_grad(self, tensor: Tensor) -> Tensor:
        return tensor if self._alone else base_model.all_gather_with_grad(tensor)


processes = Processes()


def load_checkpoint_from_config(self: blip2.Blip2Base, cfg: Any, **kwargs: Any) -> None:
    """LAVIS's own, where the configuration names a file: `pretrained: null` starts from what the parts bring along."""
    if cfg.get("load_finetuned", True) or cfg.get("pretrained"):
        base_model.BaseModel.load_checkpoint_from_config(self, cfg, **kwargs)


def create_eva_vit_g(
    img_size: int = 224, drop_path_rate: float = 0.4, use_checkpoint: bool = False, precision: str = "fp16"
) -> Any:
    """LAVIS's ViT-g; its weights stay in fp32 where there is no GPU, as those of the language model above."""
    precision = precision if torch.cuda.is_available() else "fp32"
    return eva_vit.create_eva_vit_g(img_size, drop_path_rate, use_checkpoint, precision)


def create_clip_vit_l(img_size: int = 224, use_checkpoint: bool = False, precision: str = "fp16") -> Any:
    """LAVIS's CLIP ViT-L; precision as above."""
    return clip_vit.create_clip_vit_L(img_size, use_checkpoint, precision if torch.cuda.is_available() else "fp32")


def build_datasets(self: base_dataset_builder.BaseDatasetBuilder) -> Any:
    """The data sets by split; what is missing is fetched on every node, where LAVIS does so on that of rank 0 alone."""
    with downloads.one_at_a_time(Path(tempfile.gettempdir(), f"lavis_evlgen_data_sets-{os.getuid()}")):
        self._download_data()
    return self.build()


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

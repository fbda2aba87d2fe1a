"""What takes the place of parts of LAVIS 1.0.2 that today's transformers, processors or several nodes break.

`lavis_evlgen.lavis_repairs` says what each is put in the place of, and why.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lavis.common import dist_utils
from lavis.datasets.builders import base_dataset_builder
from lavis.models import base_model, clip_vit, eva_vit, med
from lavis.models.blip2_models import blip2
from lavis.models.blip2_models.modeling_opt import OPTForCausalLM as LavisOPT
from lavis.models.blip2_models.Qformer import BertLMHeadModel
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation import GenerationMixin

from lavis_evlgen import downloads

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

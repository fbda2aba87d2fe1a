"""ELIP in LAVIS's BLIP: pretraining, retrieval, VQA and NLVR."""

from __future__ import annotations

from typing import Any

from lavis.models.blip_models.blip_caption import BlipCaption
from lavis.models.blip_models.blip_nlvr import BlipNLVR
from lavis.models.blip_models.blip_pretrain import BlipPretrain
from lavis.models.blip_models.blip_retrieval import BlipRetrieval
from lavis.models.blip_models.blip_vqa import BlipVQA

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.elip.tasks import (
    GuidedPairs,
    GuidedPretraining,
    GuidedQuestions,
    GuidedRetrieval,
    elip_types,
)
from lavis_evlgen.registration_tools import register


@register("model", "elip_blip_pretrain")
class ElipBlipPretrain(GuidedPretraining, BlipPretrain):
    """BLIP's pretraining (contrast, matching, captions) with fewer visual tokens."""

    default_model_type = "base"
    PRETRAINED_MODEL_CONFIG_DICT = elip_types("blip_pretrain", "base")


@register("model", "elip_blip_retrieval")
class ElipBlipRetrieval(GuidedRetrieval, BlipRetrieval):
    """BLIP's retrieval."""

    default_model_type = "coco"
    PRETRAINED_MODEL_CONFIG_DICT = elip_types("blip_retrieval", "coco", "flickr")


@register("model", "elip_blip_vqa")
class ElipBlipVQA(GuidedQuestions, BlipVQA):
    """BLIP's visual question answering."""

    default_model_type = "vqav2"
    PRETRAINED_MODEL_CONFIG_DICT = elip_types("blip_vqa", "vqav2", "okvqa", "aokvqa")


@register("model", "elip_blip_nlvr")
class ElipBlipNLVR(GuidedPairs, BlipNLVR):
    """BLIP's reasoning over two pictures."""

    default_model_type = "nlvr"
    PRETRAINED_MODEL_CONFIG_DICT = elip_types("blip_nlvr", "nlvr")


@register("model", "elip_blip_caption")
class ElipBlipCaption(BlipCaption):
    """There is no such model: the name says why."""

    @classmethod
    def from_config(cls, cfg: Any = None) -> Any:
        raise ConfigError(
            "elip_blip_caption: BLIP's captioning has no text encoder, and its text is what is to be written, so there "
            "is nothing to guide the ViT by: use arch blip_caption, with pretrained: the weights of elip_blip_pretrain"
        )

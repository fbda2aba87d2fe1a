"""ELIP in LAVIS's ALBEF: pretraining, retrieval, VQA, NLVR and visual entailment."""

from __future__ import annotations

from typing import Any

from lavis.models.albef_models import AlbefBase
from lavis.models.albef_models.albef_classification import AlbefClassification
from lavis.models.albef_models.albef_nlvr import AlbefNLVR
from lavis.models.albef_models.albef_pretrain import AlbefPretrain
from lavis.models.albef_models.albef_retrieval import AlbefRetrieval
from lavis.models.albef_models.albef_vqa import AlbefVQA

from lavis_evlgen.models.elip.model import GuidedForward, readable
from lavis_evlgen.models.elip.tasks import (
    GuidedPairs,
    GuidedPretraining,
    GuidedQuestions,
    GuidedRetrieval,
    elip_types,
)
from lavis_evlgen.registration_tools import register


@register("model", "elip_albef_pretrain")
class ElipAlbefPretrain(GuidedPretraining, AlbefPretrain):
    """ALBEF's pretraining (contrast, matching, masked words) with fewer visual tokens."""

    default_model_type = "base"
    PRETRAINED_MODEL_CONFIG_DICT = elip_types("albef_pretrain", "base")
    encoders_given_masks = ("text_encoder_m",)
    loading = {"rename_text_keys": False}


@register("model", "elip_albef_retrieval")
class ElipAlbefRetrieval(GuidedRetrieval, AlbefRetrieval):
    """ALBEF's retrieval."""

    default_model_type = "coco"
    PRETRAINED_MODEL_CONFIG_DICT = elip_types("albef_retrieval", "coco", "flickr")


@register("model", "elip_albef_vqa")
class ElipAlbefVQA(GuidedQuestions, AlbefVQA):
    """ALBEF's visual question answering."""

    default_model_type = "vqav2"
    PRETRAINED_MODEL_CONFIG_DICT = elip_types("albef_vqa", "vqav2")


@register("model", "elip_albef_nlvr")
class ElipAlbefNLVR(GuidedPairs, AlbefNLVR):
    """ALBEF's reasoning over two pictures."""

    default_model_type = "nlvr"
    PRETRAINED_MODEL_CONFIG_DICT = elip_types("albef_nlvr", "nlvr")
    encoders_given_masks = ("text_encoder",)  # which LAVIS gives the momentum ViT's tokens too

    def load_from_pretrained(self, url_or_filename: str, **kwargs: Any) -> Any:
        """As LAVIS means it; its own takes the result of loading for a pair and fails."""
        message = self._loaded(AlbefBase.load_from_pretrained(self, readable(url_or_filename)), url_or_filename)
        if self.use_distill and any("_m" in name for name in message.missing_keys):
            self.copy_params()
        return message


@register("model", "elip_albef_classification")
class ElipAlbefClassification(GuidedForward, AlbefClassification):
    """ALBEF's classification of a picture with a text: visual entailment."""

    default_model_type = "ve"
    PRETRAINED_MODEL_CONFIG_DICT = elip_types("albef_classification", "ve")

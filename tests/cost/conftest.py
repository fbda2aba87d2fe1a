"""Tiny models twice: built with weights, and as skeletons."""

import pytest
from lavis.common.registry import registry

from lavis_evlgen.cost.skeleton import build_skeleton

ARCHS = {"opt": "evlgen_opt", "vicuna": "evlgen_vicuna", "any": "evlgen", "video_opt": "evlgen_video"}


@pytest.fixture(scope="session")
def skeleton(tiny_config):
    """The counterpart of `tiny_model`: ``skeleton("opt", connector="qformer")``."""

    def build(kind: str = "opt", **overrides):
        return build_skeleton(registry.get_model_class(ARCHS[kind]), tiny_config(kind, **overrides))

    return build


@pytest.fixture(scope="session")
def without_dropout(reference) -> dict:
    """The tiny connector's configuration without what differs from run to run."""
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return {**reference["bert_config"], **dropout}

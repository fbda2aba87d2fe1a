"""Tiny models with their processors, to be saved and loaded again."""

import pytest
import tiny_bert
import torch
from lavis.common.registry import registry
from tiny_processors import PREPROCESS


@pytest.fixture(scope="session")
def tiny_stage1(reference, tmp_path_factory):
    """A seeded tiny first stage of BLIP-2 in eval mode."""
    bert = tiny_bert.write_bert(tmp_path_factory.mktemp("interchange_bert"))

    def build():
        torch.manual_seed(0)
        cls = registry.get_model_class("blip2_stage1")
        config = {
            "vit_model": "eva_vit",
            "vit_config": reference["vit_config"],
            "image_size": 56,
            "vit_precision": "fp32",
            "bert_model": bert,
            "num_query_token": 4,
            "embed_dim": 8,
        }
        return cls.from_config(config).eval()

    return build


@pytest.fixture
def saved(tiny_model, tmp_path):
    """The folder of a tiny model with any language model."""
    return tiny_model("any").save_pretrained(tmp_path / "saved", preprocess=PREPROCESS)

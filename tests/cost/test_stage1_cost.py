"""BLIP-2's first stage: LAVIS's own forward, run without values."""

import pytest
import tiny_bert
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from lavis_evlgen.cost.measure import measure
from lavis_evlgen.cost.skeleton import build_skeleton


@pytest.fixture(scope="module")
def config(reference, tmp_path_factory) -> dict:
    return {
        "vit_model": "eva_vit",
        "vit_config": reference["vit_config"],
        "image_size": 56,
        "vit_precision": "fp32",
        "bert_model": tiny_bert.write_bert(tmp_path_factory.mktemp("bert")),
        "num_query_token": 4,
        "embed_dim": 8,
        "max_txt_len": 12,
    }


def test_a_step_is_that_of_the_built_model(config):
    """Text of every length is padded to max_txt_len."""
    cls = registry.get_model_class("blip2_stage1")
    model, skeleton = cls.from_config(OmegaConf.create(config)).train(), build_skeleton(cls, config)
    assert {n: (p.shape, p.requires_grad) for n, p in skeleton.named_parameters()} == {
        n: (p.shape, p.requires_grad) for n, p in model.named_parameters()
    }
    found = measure(skeleton, 3, text_length=12, half=False)
    with FlopCounterMode(display=False) as counter:
        loss = model({"image": torch.randn(3, 3, 56, 56), "text_input": ["a red cat", "a dog", "a big tree"]})["loss"]
        loss.backward()
    counted = sum(account.forward + account.backward for account in found.macs.values())
    assert round(counted * 3 * 2) == counter.get_total_flops()
    assert sum(part.trainable for part in found.parameters.values()) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    assert found.parameters["other"].trainable == model.query_tokens.numel() + 1  # and the temperature


def test_its_passes_by_hand(config):
    """Queries with the image; text; three times both; text after the queries, with the vocabulary."""
    cls = registry.get_model_class("blip2_stage1")
    skeleton = build_skeleton(cls, config)
    bert = skeleton.Qformer.config
    width, inner, layers, length = bert.hidden_size, bert.intermediate_size, bert.num_hidden_layers, 9
    found = measure(skeleton, 3, text_length=length, half=False)
    token = layers * (4 * width**2 + 2 * width * inner)
    crossing = (layers + 1) // 2  # in every second layer
    queries = 4 * token + crossing * (2 * 4 * width**2 + 2 * 17 * 64 * width)
    text = length * token
    head = length * (width**2 + width * bert.vocab_size)
    assert [call.linear for call in found.calls] == [queries, text, 3 * (queries + text), text + head]
    assert found.tokens == [17] + [4] * layers
    assert found.prompt_tokens == 0

"""Starting a connector from a file: BLIP-2's first stage, LAVIS's checkpoints, and our own model.pth."""

import pytest
import tiny_bert
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_evlgen.errors import WeightsError

QUERIES = 4


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    return tiny_bert.write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def stage1(reference, bert_folder):
    """A tiny first stage in eval mode, its `ln_vision` moved away from its start."""
    torch.manual_seed(7)
    config = {
        "vit_model": "eva_vit",
        "vit_config": reference["vit_config"],
        "image_size": 56,
        "vit_precision": "fp32",
        "bert_model": bert_folder,
        "num_query_token": QUERIES,
    }
    model = registry.get_model_class("blip2_stage1").from_config(OmegaConf.create(config)).eval()
    torch.nn.init.normal_(model.ln_vision.weight)
    torch.nn.init.normal_(model.ln_vision.bias)
    return model


@pytest.fixture
def qformer(tiny_model, bert_folder):
    """A tiny EVLGen with a Q-Former; another seed than the first stage's."""

    def build(**overrides):
        size = {"connector": "qformer", "bert_model": bert_folder, "connector_config": None}
        return tiny_model("opt", seed=1, **{**size, "num_query_token": QUERIES, **overrides})

    return build


@pytest.fixture
def saved(tmp_path):
    """Writes weights as a checkpoint; its path."""

    def save(weights, name="model.pth"):
        torch.save({"model": weights, "config": {}}, tmp_path / name)
        return str(tmp_path / name)

    return save


@torch.no_grad()
def test_stage_two_starts_with_the_queries_of_stage_one(stage1, qformer, saved):
    features = torch.randn(3, 17, 64)
    expected = stage1.extract_features({"vision_features": features}, "image").image_embeds
    started = qformer(connector_weights=saved(stage1.trainable_state_dict()))
    fresh = qformer()
    found = started.extract_features({"vision_features": features})
    assert torch.equal(found.connector, expected)
    assert torch.equal(found.vision, stage1.ln_vision(features))
    assert not torch.equal(fresh.extract_features({"vision_features": features}).connector, expected)
    assert torch.equal(started.prompt_proj.weight, fresh.prompt_proj.weight)


@torch.no_grad()
def test_checkpoints_of_lavis_blip2_of_both_stages(stage1, qformer, saved):
    """LAVIS's first stage writes all that a state_dict has; its second one has no text half but an LLM."""
    first = {**stage1.state_dict(), "visual_encoder.cls_token": torch.zeros(1, 1, 64)}
    second = {
        name: tensor
        for name, tensor in first.items()
        if not any(part in name for part in (".intermediate.", "cls.", "proj", "itm", "temp", "word_", "position_emb"))
        and (".output." not in name or "attention" in name)
    }
    second |= {"opt_proj.weight": torch.zeros(32, 16), "opt_model.model.decoder.x": torch.zeros(2)}
    features = torch.randn(2, 17, 64)
    expected = stage1.extract_features({"vision_features": features}, "image").image_embeds
    assert any("position_ids" in name for name in second) and len(second) < len(first)
    for weights in (first, second):
        started = qformer(connector_weights=saved(weights))
        assert torch.equal(started.extract_features({"vision_features": features}).connector, expected)


@pytest.mark.parametrize("connector", ["qformer", "tomeformer", "linear"])
def test_weights_of_our_own_models(qformer, saved, connector):
    options = {"connector": connector, "tome_r": 1}
    source = qformer(**options)
    with torch.no_grad():
        for tensor in source.trainable_state_dict().values():
            tensor.normal_()
    other = qformer(**options, connector_weights=saved(source.trainable_state_dict()))
    own, given = other.trainable_state_dict(), source.trainable_state_dict()
    for name in own:
        assert torch.equal(own[name], given[name]) == name.startswith(("connector.", "ln_vision.")), name


def test_the_official_names_start_a_tomeformer(tiny_model, parity_dir):
    path = str(parity_dir / "liptome_opt.pth")
    whole = tiny_model("opt", load_pretrained=True, pretrained=path)
    started = tiny_model("vicuna", connector_weights=path)  # the connector alone, before another language model
    for name, tensor in started.trainable_state_dict().items():
        if name.startswith(("connector.", "ln_vision.")):
            assert torch.equal(tensor, whole.trainable_state_dict()[name])


def test_what_does_not_fit_is_named(stage1, qformer, saved, tmp_path):
    weights = stage1.trainable_state_dict()
    lacking = {name: tensor for name, tensor in weights.items() if name != "Qformer.bert.embeddings.LayerNorm.bias"}
    cases = [
        (lacking, {}, r"has no connector.bert.embeddings.LayerNorm.bias, which the connector needs"),
        (weights, {"connector": "tomeformer", "tome_r": 1}, "has no connector.input_proj.weight"),
        (weights, {"num_query_token": 5}, r"connector.query_tokens is \(1, 4, 16\) in .* but \(1, 5, 16\) here"),
        (weights, {"num_layers": 2}, r"connector.bert.encoder.layer.2.* belongs to another connector"),
        ({"ln_vision.bias": torch.zeros(64)}, {}, r"has no ln_vision.weight"),
    ]
    for given, overrides, message in cases:
        with pytest.raises(WeightsError, match=f"connector_weights: .*{message}"):
            qformer(**overrides, connector_weights=saved(given))
    with pytest.raises(WeightsError, match=r"connector_weights: there is no file '.*none.pth'"):
        qformer(connector_weights=str(tmp_path / "none.pth"))

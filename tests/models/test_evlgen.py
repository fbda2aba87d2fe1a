"""The whole model: what trains, what it computes, what it refuses."""

import copy

import pytest
import torch

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.connectors import build_connector

KINDS = ["opt", "vicuna", "any"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_connector_side_trains(tiny_model, batch, kind):
    model = tiny_model(kind, merged_skip=True).train()
    torch.nn.init.normal_(model.prompt_proj.weight)  # it starts at zero, which hides the connector's gradients
    model(batch)["loss"].backward()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"ln_vision", "connector", "prompt_proj", "skip_proj"}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad and "key.bias" not in name:  # softmax does not see a shift of all keys
            assert parameter.grad.abs().sum() > 0, name
    assert model.connector.training
    assert not any(module.training for part in (model.vision, model.language) for module in part.modules())


def test_samples_are_not_changed(tiny_model, batch):
    model, before = tiny_model("opt"), copy.deepcopy(batch)
    model(batch)
    model.generate(batch, num_beams=1, max_length=3)
    model.predict_answers(batch, max_len=2, prompt="Question: {}")
    assert batch.keys() == before.keys() and batch["text_input"] == before["text_input"]
    assert torch.equal(batch["image"], before["image"])


@pytest.mark.parametrize(
    ("kind", "options", "loss"),
    [
        ("opt", {}, 6.80021),
        ("opt", {"merge": "size"}, 6.86050),
        ("vicuna", {}, 4.81881),
        ("any", {"merged_skip": True}, 4.80613),
        ("any", {"connector": "qformer"}, 4.80477),
        ("any", {"connector": "linear"}, 4.79636),
    ],
)
def test_golden_losses(tiny_model, batch, kind, options, loss):
    with torch.no_grad():
        assert tiny_model(kind, **options)(batch)["loss"].item() == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_equals_full_logits(tiny_model, batch, kind):
    """Logits at text positions only give the loss of all logits with masked labels."""
    model = tiny_model(kind)
    language = model.language
    with torch.no_grad():
        prompt = model.soft_prompt(batch)
        rows = []
        for embeds, text in zip(prompt, batch["text_input"], strict=True):
            context, target = language.encode_text(text, "")
            ids = torch.tensor([context + target])
            sequence, mask = language.sequence(embeds[None], ids, torch.ones_like(ids))
            logits = language.model(inputs_embeds=sequence, attention_mask=mask).logits[0]
            counted = logits[-len(target) - 1 : -1].log_softmax(-1)
            rows.append(-counted[torch.arange(len(target)), torch.tensor(target)])
    assert model(batch)["loss"].item() == pytest.approx(torch.cat(rows).mean().item(), rel=1e-5)


def test_features_from_a_cache_equal_pixels(tiny_model, batch):
    model = tiny_model("opt")
    features = model.vision(batch["image"])
    assert not features.requires_grad
    cached = {"vision_features": features, "text_input": batch["text_input"]}
    assert model(cached)["loss"].item() == model(batch)["loss"].item()
    assert model.generate(cached, num_beams=2, max_length=5) == model.generate(batch, num_beams=2, max_length=5)


def test_source_map_partitions_the_patches(tiny_model, batch):
    features = tiny_model("opt").extract_features(batch)
    assert features.source_map.shape == (3, 17) and features.connector.shape[1] == 5
    for row in features.source_map:
        assert sorted(set(row.tolist())) == list(range(5))
        assert (row == row[0]).sum() == 1  # CLS stands alone


@pytest.mark.parametrize("kind", KINDS)
def test_generation_modes(tiny_model, batch, kind):
    model = tiny_model(kind)
    greedy = model.generate(batch, num_beams=1, max_length=4)
    assert len(greedy) == 3 and greedy == model.generate(batch, num_beams=1, max_length=4)
    assert len(model.generate(batch, num_beams=4, num_captions=3, max_length=4)) == 9
    torch.manual_seed(0)
    sampled = model.generate(batch, use_nucleus_sampling=True, num_captions=2, max_length=6, temperature=2.0)
    assert len(sampled) == 6 and len(set(sampled)) > 1
    with pytest.raises(ConfigError, match="num_captions: 3 needs num_beams of at least 3"):
        model.generate(batch, num_beams=2, num_captions=3)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts(tiny_model, batch, kind):
    """Prompts of different lengths in one batch give what each gives alone."""
    model = tiny_model(kind)
    prompts = ["a photo of", "the", "two dogs run across the green field"]
    together = model.generate({**batch, "prompt": prompts}, num_beams=1, max_length=5)
    alone = [
        model.generate({"image": batch["image"][i : i + 1], "prompt": prompts[i]}, num_beams=1, max_length=5)[0]
        for i in range(3)
    ]
    assert together == alone
    with pytest.raises(ConfigError, match="2 prompts for 3 images"):
        model.generate({**batch, "prompt": ["a", "b"]})
    with pytest.raises(ConfigError, match="inference_method: 'sample'"):
        model.predict_answers(batch, inference_method="sample")


def test_a_prompt_carries_no_loss(tiny_model):
    for kind in KINDS:
        language = tiny_model(kind).language
        text = "a photo of a cat" if kind == "opt" else "a cat"
        context, target = language.encode_text(text, "a photo of")
        assert len(context) == len(language.encode_context("a photo of"))
        assert target[-1] == language.end_token_id and len(target) > 1


def test_opts_texts_begin_with_the_prompt_once(tiny_model, batch):
    """BLIP-2's files let a processor write the prompt, and the model only mask it; without one the model writes it."""
    language = tiny_model("opt").language
    written = language.encode_text("a photo of a cat", "a photo of")
    assert written == language.encode_text("a cat", "a photo of") == language.encode_text("a cat", "a photo of ")
    assert language.tokenizer.decode(written[0], skip_special_tokens=True) == "a photo of"
    assert language.tokenizer.decode(written[1]) == " a cat\n"


@pytest.mark.parametrize("kind", ["opt", "any"])
def test_a_prompt_without_room_for_a_text(tiny_model, batch, kind):
    """It would leave nothing to learn (NaN), or only where to end."""
    model = tiny_model(kind, prompt="a cat and a dog " * 9)
    with pytest.raises(ConfigError, match=r"model.max_txt_len: 32 tokens leave no room for a text after the prompt"):
        model(batch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(tiny_model, batch, dtype):
    model = tiny_model("opt")
    full = model(batch)["loss"].item()
    with torch.autocast("cpu", dtype):
        loss = model(batch)["loss"]
        loss.backward()
    assert loss.dtype is torch.float32 and loss.item() == pytest.approx(full, rel=2e-2)
    bf16 = tiny_model("opt", llm_precision="bf16", vit_precision="bf16")
    assert bf16(batch)["loss"].item() == pytest.approx(full, rel=2e-2)


def test_optimizer_groups(tiny_model):
    model = tiny_model("opt", connector_lr_scale=0.3)
    groups = model.optimizer_groups(0.05)
    of = {id(p): group for group in groups for p in group["params"]}
    assert len(of) == sum(p.requires_grad for p in model.parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = of[id(parameter)]
            assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0), name
            assert group["lr_scale"] == (0.3 if name.startswith("connector.encoder.") else 1.0), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tome_r": 9}, "tome_r: 9 is too large"),
        ({"tome_rr": 4}, "model.tome_rr is unknown; did you mean 'tome_r'"),
        ({"connector": "tomformer"}, "connector: 'tomformer' is unknown"),
        ({"merge": "mean"}, "merge: 'mean' is unknown"),
        ({"beta": 0.5}, "model.beta: 0.5"),
        ({"vit_model": "eva"}, "vit_model: 'eva' is unknown"),
        ({"vit_precision": "fp8"}, "vit_precision: 'fp8'"),
        ({"vit_config": {"depht": 2}}, "vit_config: unknown depht"),
        ({"connector_config": {"hidden": 2}}, "connector_config: BertConfig has no hidden"),
        ({"opt_model": None}, "model.opt_model is not set"),
        ({"load_pretrained": True}, "model.pretrained names no file"),
        ({"merged_skip": True, "connector": "qformer"}, "a Q-Former merges no tokens"),
        ({"num_layers": 0}, "num_layers: 0"),
        ({"max_txt_len": 1}, "model.max_txt_len: 1 tokens hold no text"),
        ({"max_output_txt_len": 0}, "model.max_output_txt_len: 0 tokens hold no text"),
    ],
)
def test_bad_configuration(tiny_model, options, message):
    with pytest.raises(ConfigError, match=message):
        tiny_model("opt", **options)


def test_image_of_another_size(tiny_model):
    with pytest.raises(ConfigError, match="images are 84x84 but the model takes 56x56"):
        tiny_model("opt")({"image": torch.zeros(1, 3, 84, 84), "text_input": ["x"]})


def test_official_files_with_alpha_run(tiny_model, batch):
    model = tiny_model("opt", alpha=0.4, beta=0.0, num_layers=2, tome_r=4)
    assert model(batch)["loss"].isfinite() and model.connector.num_tokens_out == 9


@torch.no_grad()
def test_null_means_the_default(tiny_model, batch):
    """As after `prompt:` with nothing behind it; keys of which null says something keep it."""
    nulls = dict.fromkeys(["prompt", "merge", "connector", "num_frames", "drop_path_rate", "alpha", "beta"])
    model = tiny_model("opt", **nulls)
    assert model.prompt == "" and model(batch)["loss"].item() == tiny_model("opt")(batch)["loss"].item()
    with pytest.raises(ConfigError, match="model.opt_model is not set"):
        tiny_model("opt", **nulls, opt_model=None)


def test_starting_from_a_bert(tmp_path, tiny_model, reference):
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    bert = BertModel(BertConfig(**reference["bert_config"]))
    bert.save_pretrained(tmp_path / "bert")
    model = tiny_model("opt", bert_model=str(tmp_path / "bert"), connector_config=None, num_layers=2)
    layer = model.connector.layers[1]
    assert torch.equal(layer.attention.self.key.weight, bert.encoder.layer[1].attention.self.key.weight)
    positions = model.connector.embeddings.position_embeddings.weight
    assert torch.equal(positions, bert.embeddings.position_embeddings.weight)
    qformer = build_connector(model.vision, "qformer", bert_model=str(tmp_path / "bert"))
    copied = qformer.bert.encoder.layer[0].intermediate_query.dense.weight
    assert torch.equal(copied, bert.encoder.layer[0].intermediate.dense.weight)
    with pytest.raises(ConfigError, match="num_layers: 5, but .* has 3"):
        build_connector(model.vision, bert_model=str(tmp_path / "bert"), num_layers=5, tome_r=2)


def test_resume_checkpoint_of_opt27b_stays_under_1_3_gb():
    """The paper's full size, on the meta device: weights and two Adam moments of what trains, in fp32."""
    from transformers import BertConfig

    from lavis_evlgen.models.tomeformer import TomeFormer

    with torch.device("meta"):
        parts = [TomeFormer(1408, 257, BertConfig()), torch.nn.LayerNorm(1408), torch.nn.Linear(768, 2560)]
    count = sum(p.numel() for part in parts for p in part.parameters())
    assert 86e6 < count < 92e6
    assert 3 * 4 * count < 1.3e9

"""The parts of LAVIS's models from local places: ViTs of transformers, tokenizers, sizes; and what may be wrong."""

import pytest
import torch
from elip_tiny import build, tiny_keys, tokenizer_folder
from lavis.models.vit import VisionTransformer, VisionTransformerEncoder
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTModel,
)

from lavis_evlgen.embedded.weights import minilm
from lavis_evlgen.errors import ConfigError, WeightsError
from lavis_evlgen.models.elip.parts import local_parts
from lavis_evlgen.models.elip.start import load_vit, state_of_transformers

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}


def lavis_vit(image_size=56):
    return VisionTransformer(img_size=image_size, patch_size=14, embed_dim=24, depth=3, num_heads=2).eval()


def randomised(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model.eval()


@pytest.mark.parametrize("kind", ["dinov2", "vit"])
def test_vits_of_transformers_give_the_same_tokens_in_lavis(kind, tmp_path):
    if kind == "dinov2":
        theirs = Dinov2Model(Dinov2Config(**SIZES, mlp_ratio=4))
    else:
        config = ViTConfig(**SIZES, intermediate_size=96, layer_norm_eps=1e-6, hidden_act="gelu")
        theirs = ViTModel(config, add_pooling_layer=False)
    randomised(theirs).save_pretrained(tmp_path)
    ours = lavis_vit()
    load_vit(ours, str(tmp_path))
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images).last_hidden_state, rtol=1e-4, atol=1e-4)
    larger = lavis_vit(image_size=84)
    load_vit(larger, str(tmp_path))
    assert larger.pos_embed.shape == (1, 37, 24)


def test_files_of_weights(tmp_path):
    source, copy = randomised(lavis_vit()), lavis_vit()
    torch.save({"model": source.state_dict()}, tmp_path / "vit.pth")
    load_vit(copy, str(tmp_path / "vit.pth"))
    assert torch.equal(copy.blocks[2].mlp.fc1.weight, source.blocks[2].mlp.fc1.weight)
    whole = {f"visual_encoder.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"model": {**whole, "text_proj.weight": torch.zeros(1)}}, tmp_path / "model.pth")
    fresh = lavis_vit()
    load_vit(fresh, str(tmp_path / "model.pth"))
    assert torch.equal(fresh.norm.bias, source.norm.bias)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    torch.save(
        randomised(VisionTransformer(56, 14, embed_dim=36, depth=3, num_heads=2)).state_dict(), tmp_path / "w.pth"
    )
    with pytest.raises(
        WeightsError, match=r"vit_weights: .*w.pth does not fill .* first cls_token: it has \(1, 1, 36\)"
    ):
        load_vit(lavis_vit(), str(tmp_path / "w.pth"))
    with pytest.raises(WeightsError, match="vit_weights: cannot load 'no/such/vit'"):
        load_vit(lavis_vit(), "no/such/vit")
    with pytest.raises(WeightsError, match="CLIPVisionModel is no ViT, DeiT or DINOv2"):
        state_of_transformers(CLIPVisionModel(CLIPVisionConfig(**SIZES, intermediate_size=48)))


def test_embedded_minilm_has_berts_vocabulary():
    lines = (minilm() / "vocab.txt").read_text("utf-8").splitlines()
    # positions known from bert-base-uncased
    known = {
        0: "[PAD]",
        100: "[UNK]",
        101: "[CLS]",
        102: "[SEP]",
        103: "[MASK]",
        1996: "the",
        2417: "red",
        30521: "##～",
    }
    assert len(lines) == 30522 and {place: lines[place] for place in known} == known
    tokenizer = BertTokenizer.from_pretrained(str(minilm()))
    assert tokenizer("The RED dog").input_ids == [101, 1996, 2417, 3899, 102]


def test_lavis_classes_are_as_before_afterwards(tmp_path):
    before = (BertTokenizer.from_pretrained.__func__, VisionTransformerEncoder.from_config.__func__)
    with pytest.raises(ValueError, match="stop"), local_parts(tiny_keys(tmp_path, "blip")):
        assert VisionTransformerEncoder.from_config.__func__ is not before[1]
        raise ValueError("stop")
    assert (BertTokenizer.from_pretrained.__func__, VisionTransformerEncoder.from_config.__func__) == before
    assert "from_pretrained" not in vars(BertTokenizer)


@pytest.mark.parametrize("family", ["albef", "blip"])
def test_text_encoder_starts_from_local_weights(tmp_path, family):
    keys = tiny_keys(tmp_path, family)
    bert = randomised(BertModel(BertConfig(**keys["bert_config"]), add_pooling_layer=False))
    bert.save_pretrained(tmp_path / "bert")
    model = build(f"elip_{family}_pretrain", {**keys, "bert_model": str(tmp_path / "bert")})
    text = getattr(model.text_encoder, "bert", model.text_encoder)
    ours, theirs = (each.encoder.layer[2].attention.self.query.weight for each in (text, bert))
    assert torch.equal(ours, theirs)
    assert model.tokenizer.tokenize("the red dogs") == ["the", "red", "dog", "##s"]
    head = (model.text_decoder if family == "blip" else model.text_encoder).cls.predictions
    assert head.decoder.bias is head.bias and len(head.bias) == len(model.tokenizer) + (0 if family == "blip" else 10)
    # nothing is left without memory or with what happened to stand there
    assert not head.bias.any()
    fresh = text.encoder.layer[6].crossattention.self.key
    assert fresh.weight.std().item() == pytest.approx(0.02, rel=0.2) and not fresh.bias.any()
    assert torch.equal(text.embeddings.position_ids[0], torch.arange(512))
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"vit_config": {"embed_dims": 24}}, ConfigError, "vit_config.embed_dims is unknown; did you mean 'embed_dim'"),
        ({"vit_config": {"ckpt_layer": 1}}, ConfigError, "vit_config.ckpt_layer is unknown; use model.vit_ckpt_layer"),
        (
            {"bert_config": {"hiden_size": 24}},
            ConfigError,
            "bert_config.hiden_size is unknown; did you mean 'hidden_size'",
        ),
        ({"med_config_path": "none.json"}, ConfigError, "med_config_path: there is no file none.json"),
        ({"med_config_path": None}, ConfigError, "med_config_path is missing"),
        ({"tokenizer": "no/such/folder"}, WeightsError, "tokenizer: cannot load 'no/such/folder'"),
        ({"tokenizer": "embedded:minilm"}, ConfigError, "tokenizer has 30524 tokens, the text encoder 90"),
        ({"bert_model": "no/such/bert"}, WeightsError, "bert_model: cannot load 'no/such/bert'"),
        ({"elip_positions": [1, 2, 9]}, ConfigError, "elip_positions: .* blocks 0 to 5"),
    ],
)
def test_errors_name_the_key(tmp_path, overrides, error, message):
    name = "elip_albef_vqa" if "bert_model" in overrides else "elip_blip_vqa"
    keys = tiny_keys(tmp_path, "albef" if "bert_model" in overrides else "blip")
    with pytest.raises(error, match=message):
        build(name, {**keys, **overrides})


def test_weights_that_lavis_would_download_are_asked_for_by_key(tmp_path, monkeypatch):
    def no_network(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    keys = tiny_keys(tmp_path, "blip", vit_type="base")
    del keys["vit_config"], keys["vit_weights"]
    with pytest.raises(
        WeightsError, match="vit_weights: the weights that LAVIS starts pretraining from .*no route to host"
    ):
        build("elip_blip_pretrain", keys)
    assert tokenizer_folder(tmp_path / "tokenizer") == keys["tokenizer"]

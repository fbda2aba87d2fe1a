"""LAVIS's own ALBEF and BLIP, untouched but for lavis_repairs, train and write on today's transformers.

The weights that LAVIS fetches are tiny: a small BERT under the name bert-base-uncased in transformers' cache, and a
small ViT in the place of DeiT's.
"""

import json

import elip_tiny
import pytest
import tiny_bert
import torch
import transformers
from lavis.common.registry import registry
from lavis.models import med
from lavis.models.blip_models import blip_caption
from lavis.models.vit import VisionTransformerEncoder
from omegaconf import OmegaConf
from packaging.version import Version
from transformers import BertForMaskedLM

from lavis_evlgen.lavis_repairs import REPAIRS

WITH_A_HEAD = ["albef_pretrain", "albef_vqa", "blip_pretrain"]
SIZE = {**tiny_bert.SIZE, "num_hidden_layers": 7}


@pytest.fixture(autouse=True)
def tiny_parts(monkeypatch, tmp_path):
    monkeypatch.setattr(tiny_bert, "SIZE", SIZE)
    tiny_bert.put_into_hub_cache(tmp_path / "hub", monkeypatch)

    def vit(cfg, from_pretrained=False):
        encoder = VisionTransformerEncoder(img_size=elip_tiny.IMAGE_SIZE, embed_dim=16, depth=2, num_heads=2)
        encoder.vision_width = 16
        return encoder

    monkeypatch.setattr(VisionTransformerEncoder, "from_config", staticmethod(vit))


@pytest.fixture
def stock(tmp_path, monkeypatch):
    """A seeded stock model; its own weights are those of its parts."""

    def build(name, **overrides):
        cls = registry.get_model_class(name)
        own = json.loads((elip_tiny.Path(registry.get_path("library_root")) / med_config(name)).read_text())
        path = tmp_path / "med.json"
        own_tokens = 2 if name in ("blip_caption", "blip_vqa") else 0
        path.write_text(json.dumps({**own, **SIZE, "encoder_width": 16, "vocab_size": SIZE["vocab_size"] + own_tokens}))
        monkeypatch.setattr(cls, "load_checkpoint_from_config", lambda self, cfg: None)
        keys = {"med_config_path": str(path), "image_size": 64, "embed_dim": 8, "queue_size": 8, "mlm_mask_prob": 0.5}
        torch.manual_seed(0)
        return cls.from_config(OmegaConf.create({**keys, "prompt": "a ", **overrides}))

    return build


def med_config(name):
    return f"configs/models/{'med_config_albef' if name.startswith('albef') else 'med_config'}.json"


def head_of(model):
    decoder = getattr(model, "text_decoder", None) or model.text_encoder
    return decoder.cls.predictions


@pytest.mark.parametrize("name", WITH_A_HEAD)
def test_the_language_head_has_its_bias_and_trains(stock, name):
    model = stock(name)
    head = head_of(model)
    saved = BertForMaskedLM.from_pretrained("bert-base-uncased").cls.predictions.bias
    assert head.bias is head.decoder.bias and torch.equal(head.bias[: len(saved)], saved) and saved.abs().min() > 0
    output = elip_tiny.step(model, elip_tiny.samples(name.split("_")[1]))
    assert torch.isfinite(output["loss"]) and head.bias.grad.abs().sum() > 0


@pytest.mark.parametrize("name", WITH_A_HEAD)
def test_without_the_repair_no_step_can_be_trained_where_it_is_needed(stock, name, monkeypatch):
    """It is with the tested transformers, not yet with the oldest."""
    (repair,) = [each for each in REPAIRS if name in each.name and "bias" in each.defect]
    monkeypatch.delattr(med.BertPreTrainedModel, "from_pretrained")
    model = stock(name)
    assert (
        head_of(model).decoder.bias.is_meta == repair.needed() == (Version(transformers.__version__) > Version("4.49"))
    )
    if repair.needed():
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            elip_tiny.step(model, elip_tiny.samples(name.split("_")[1]))


def test_a_bias_that_no_file_has_is_zero(stock, monkeypatch, tmp_path):
    monkeypatch.setattr(BertForMaskedLM, "save_pretrained", lambda self, folder: self.bert.save_pretrained(folder))
    tiny_bert.put_into_hub_cache(tmp_path / "without_head", monkeypatch)
    head = head_of(stock("albef_pretrain"))
    assert head.bias is head.decoder.bias and torch.equal(head.bias, torch.zeros_like(head.bias))


PICTURES = {"image": torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))}


def test_blip_writes_by_beams_what_it_writes_for_each_picture_alone(stock):
    model = stock("blip_caption").eval()
    model.requires_grad_(False)
    torch.nn.init.normal_(model.visual_encoder.patch_embed.proj.weight, generator=torch.Generator().manual_seed(1))
    options = {"num_beams": 3, "max_length": 9, "min_length": 4}
    alone = [model.generate({"image": picture[None]}, **options)[0] for picture in PICTURES["image"]]
    assert model.generate(PICTURES, **options) == alone and alone[0] != alone[1]
    assert len(model.generate(PICTURES, use_nucleus_sampling=True, num_captions=2, max_length=9)) == 4


def test_blip_writes_the_most_likely_words(stock):
    """Greedy search against one word after the other by hand."""
    model = stock("blip_caption").eval()
    model.requires_grad_(False)
    text = model.tokenizer(model.prompt, return_tensors="pt")
    ids = text.input_ids[:, :-1].clone()
    ids[:, 0] = model.tokenizer.bos_token_id
    picture = model.visual_encoder(PICTURES["image"][:1])
    start = ids.shape[1]
    for _ in range(5):
        logits = model.text_decoder(ids, encoder_hidden_states=picture, return_dict=True, is_decoder=True).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
        if ids[0, -1] == model.tokenizer.sep_token_id:
            break
    written = model.tokenizer.decode(ids[0], skip_special_tokens=True)[len(model.prompt) :]
    found = model.generate({"image": PICTURES["image"][:1]}, num_beams=1, max_length=start + 5, min_length=1)
    assert found == [written]


def test_blip_answers_by_beams(stock):
    model = stock("blip_vqa").eval()
    samples = {**PICTURES, "text_input": ["a cat", "the dog"]}  # of one length: LAVIS's decoder attends to padding
    answers = model.predict_answers(samples, inference_method="generate", num_beams=3, max_len=6)
    for number, answer in enumerate(answers):
        one = {"image": PICTURES["image"][number][None], "text_input": samples["text_input"][number : number + 1]}
        assert model.predict_answers(one, inference_method="generate", num_beams=3, max_len=6) == [answer]


def test_without_the_repair_blip_cannot_search_by_beams(stock, monkeypatch):
    monkeypatch.setattr(blip_caption, "XBertLMHeadDecoder", med.XBertLMHeadDecoder)
    with pytest.raises(Exception, match="must match|has no attribute 'generate'"):
        stock("blip_caption").eval().generate(PICTURES, num_beams=3, max_length=9)

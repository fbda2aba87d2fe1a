"""LAVIS's own blip2_opt generates right beside today's transformers."""

import types

import pytest
import torch
from lavis.models.blip2_models import blip2_opt
from transformers import AutoTokenizer

from lavis_evlgen.lavis_repairs import repair


class Prompted(torch.nn.Module):
    """What Blip2OPT.generate calls of itself, with a given soft prompt in the place of ViT and Q-Former."""

    prompt = ""

    def __init__(self, model, tokenizer, soft_prompt):
        super().__init__()
        self.opt_model, self.opt_tokenizer = model, tokenizer
        self.eos_token_id = tokenizer("\n", add_special_tokens=False).input_ids[0]
        self.query_tokens = soft_prompt
        self.visual_encoder = self.ln_vision = self.opt_proj = torch.nn.Identity()
        self.Qformer = types.SimpleNamespace(bert=lambda **_: types.SimpleNamespace(last_hidden_state=soft_prompt))

    def maybe_autocast(self):
        return torch.autocast("cpu", enabled=False)


@pytest.fixture(scope="module")
def pair(tiny_model, parity_dir, reference):
    ours = tiny_model("opt", load_pretrained=True, pretrained=str(parity_dir / "liptome_opt.pth"))
    samples = {"image": reference["liptome_opt"]["image"]}
    with torch.no_grad():
        soft_prompt = ours.soft_prompt(samples)
    model = blip2_opt.OPTForCausalLM.from_pretrained(parity_dir / "tiny_opt").eval()
    model.load_state_dict(ours.language.model.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(parity_dir / "tiny_opt", use_fast=False)
    return ours, Prompted(model, tokenizer, soft_prompt), samples


@pytest.mark.parametrize(("num_beams", "num_captions"), [(1, 1), (5, 1), (5, 3)])
def test_blip2_opt_generates_what_stock_opt_does(pair, num_beams, num_captions):
    ours, blip2, samples = pair
    texts = blip2_opt.Blip2OPT.generate(
        blip2, {"image": torch.zeros(3, 4, 4)}, num_beams=num_beams, max_length=11, num_captions=num_captions
    )
    assert texts == ours.generate(samples, num_beams=num_beams, max_length=11, num_captions=num_captions)


def test_nucleus_sampling_runs(pair):
    _, blip2, _ = pair
    texts = blip2_opt.Blip2OPT.generate(
        blip2, {"image": torch.zeros(3, 4, 4)}, use_nucleus_sampling=True, max_length=5, num_captions=2
    )
    assert len(texts) == 6


def test_repairing_twice_changes_nothing():
    before = blip2_opt.OPTForCausalLM
    repair()
    assert blip2_opt.OPTForCausalLM is before

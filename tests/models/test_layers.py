"""Layers of language models are found, and forget their activations without changing anything else."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MixtralConfig, OPTConfig

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.layers import find_layers
from lavis_evlgen.peak_memory import PeakMemory

SIZE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 20}
FAMILIES = {
    "OPTDecoderLayer": OPTConfig(**SIZE, ffn_dim=32, word_embed_proj_dim=16),
    "LlamaDecoderLayer": LlamaConfig(**SIZE),
    "GPT2Block": GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=20),
    "MixtralDecoderLayer": MixtralConfig(
        **SIZE, num_key_value_heads=2, num_local_experts=8
    ),  # more experts than layers
}


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_of_a_family(name):
    layers = find_layers(AutoModelForCausalLM.from_config(FAMILIES[name]))
    assert [type(layer).__name__ for layer in layers] == [name] * 3


def test_a_model_without_layers():
    with pytest.raises(ConfigError, match="no list of layers found in Linear, which llm_grad_checkpoint and run.shard"):
        find_layers(nn.Linear(1, 1))


@pytest.mark.parametrize("kind", ["opt", "any"])
def test_checkpointed_layers_give_the_same_with_less_memory(tiny_model, batch, kind):
    found, peaks = [], []
    for on in (False, True):
        model = tiny_model(kind, llm_grad_checkpoint=on)
        # long texts, so that the layers' activations are most of what is kept
        samples = {**batch, "text_input": ["the cat is on the car " * 5] * 3}
        prompt = model.soft_prompt(samples).detach().requires_grad_()
        with PeakMemory() as memory:
            loss = model.language.loss(prompt, samples["text_input"])
            loss.backward()
        peaks.append(memory.peak)
        found.append([loss.detach(), prompt.grad, model.generate(batch, max_length=5, num_beams=2)])
    plain, saving = found
    assert torch.equal(plain[0], saving[0]) and torch.equal(plain[1], saving[1]) and plain[2] == saving[2]
    assert plain[1].abs().max() > 0
    assert peaks[1] < 0.8 * peaks[0]

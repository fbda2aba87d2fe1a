"""The sizes in our table, against the parameter counts that the published weights have."""

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from lavis_evlgen.cost.published import published_config

COUNTS = {
    "facebook/opt-1.3b": 1_315_758_080,
    "facebook/opt-2.7b": 2_651_596_800,
    "facebook/opt-6.7b": 6_658_473_984,
    "facebook/opt-13b": 12_853_473_280,
    "lmsys/vicuna-7b-v1.3": 6_738_415_616,
    "./llm/vicuna-13b/": 13_015_864_320,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "bert-base-uncased": 109_482_240,
    "facebook/dinov2-small": 22_056_576,
    "facebook/dinov2-base": 86_580_480,
    "facebook/dinov2-large": 304_368_640,
    "facebook/dinov2-giant": 1_136_480_768,
    "openai/clip-vit-large-patch14": 303_179_776,
}


@pytest.mark.parametrize("name, count", COUNTS.items())
def test_sizes_give_the_published_number_of_parameters(name, count):
    config = published_config(name)
    auto = AutoModelForCausalLM if config.model_type in ("opt", "llama") else AutoModel
    with torch.device("meta"):
        assert sum(p.numel() for p in auto.from_config(config).parameters()) == count


@pytest.mark.parametrize("name", ["facebook/opt-350m", "meta-llama/Llama-3-8b", "opt-2.7b-mine", "opt-2-7b"])
def test_other_names_are_not_guessed(name):
    assert published_config(name) is None

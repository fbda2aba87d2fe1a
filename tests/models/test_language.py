"""Any causal language model of Hugging Face's: losses, captions and rankings are those of its own forward pass."""

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.language import LanguageModel

SIZE = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
GPT2_SIZE = {"vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
MAMBA_SIZE = {key: SIZE[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "initializer_range")}
HEADS = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64}
# what each family has of its own: learned positions; shared keys; scaled embeddings; capped logits and a cache of fixed
# length; a base model under another name than it says; scaled logits; no keys and values at all
FAMILIES = {
    "GPT2": ("GPT2Config", GPT2_SIZE),
    "Qwen2": ("Qwen2Config", SIZE),
    "Gemma": ("GemmaConfig", {**SIZE, "head_dim": 8}),
    "Gemma2": ("Gemma2Config", {**SIZE, **HEADS, "final_logit_softcapping": 2.0}),
    "Gemma3": ("Gemma3TextConfig", {**SIZE, **HEADS, "sliding_window_pattern": 2}),
    "Cohere": ("CohereConfig", {**SIZE, "logit_scale": 0.3}),
    "Granite": ("GraniteConfig", {**SIZE, "logits_scaling": 3.0}),
    "FalconH1": (
        "FalconH1Config",
        {
            **SIZE,
            "lm_head_multiplier": 0.3,
            "mamba_d_ssm": 32,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
        },
    ),
    "Mamba": ("MambaConfig", {**MAMBA_SIZE, "state_size": 4}),
}
TEXTS = ["a cat on the green field", "two dogs", "a man"]
PROMPTS = ["a photo of a very big dog and", "", "the"]
ANSWERS = ["yes", "a dog runs", "two men and a cat"]


@pytest.fixture(scope="module")
def tokenizer(parity_dir):
    return AutoTokenizer.from_pretrained(parity_dir / "tiny_llama")


@pytest.fixture(scope="module", params=FAMILIES)
def language(request, tokenizer):
    config, options = FAMILIES[request.param]
    if not hasattr(transformers, config):
        pytest.skip(f"transformers {transformers.__version__} has no {request.param}")
    torch.manual_seed(0)
    return LanguageModel(AutoModelForCausalLM.from_config(getattr(transformers, config)(**options)), tokenizer)


@pytest.fixture
def soft_prompt(language):
    return 0.5 * torch.randn(3, 5, language.width, generator=torch.Generator().manual_seed(1))


def own_likelihood(language, prompt, context, target):
    """The log-probabilities of target ids, from the logits of the model's own forward pass."""
    ids = torch.tensor([context + target])
    embeds, mask = language.sequence(prompt[None], ids, torch.ones_like(ids))
    with torch.no_grad():
        logits = language.model(inputs_embeds=embeds, attention_mask=mask).logits[0, -len(target) - 1 : -1]
    return logits.float().log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)]


def test_loss_is_that_of_all_logits(language, soft_prompt):
    expected = [
        own_likelihood(language, prompt, *language.encode_text(text, before))
        for prompt, text, before in zip(soft_prompt, TEXTS, PROMPTS, strict=True)
    ]
    soft_prompt.requires_grad_()
    loss = language.loss(soft_prompt, TEXTS, PROMPTS)
    assert loss.item() == pytest.approx(-torch.cat(expected).mean().item(), abs=1e-5)
    loss.backward()
    assert soft_prompt.grad.abs().sum(dim=(1, 2)).min() > 0


@pytest.mark.parametrize("num_beams", [1, 3])
def test_captions_do_not_depend_on_their_neighbours(language, soft_prompt, num_beams):
    """Prompts of different lengths are padded in a batch, and not where each is alone."""
    options = {"max_new_tokens": 6, "num_beams": num_beams, "do_sample": False}
    together = language.generate(soft_prompt, PROMPTS, **options)
    alone = [language.generate(soft_prompt[[n]], [PROMPTS[n]], **options)[0] for n in range(3)]
    assert together == alone and len(set(together)) > 1


def test_rank_is_the_likelihood_of_each_answer(language, soft_prompt):
    scores = language.rank(soft_prompt, PROMPTS, ANSWERS)
    for row, question in enumerate(PROMPTS):
        context = language.encode_context(question)
        expected = [
            own_likelihood(language, soft_prompt[row], context, language.encode_answer(answer, question)).sum()
            for answer in ANSWERS
        ]
        torch.testing.assert_close(scores[row], torch.stack(expected), rtol=0, atol=1e-4)


def test_the_text_that_ends_an_answer(tokenizer, parity_dir):
    """LLaMA's tokenizer makes a token of its own, a space, before a text that stands alone."""
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2_SIZE))
    assert tokenizer("o", add_special_tokens=False).input_ids != tokenizer("ao", add_special_tokens=False).input_ids[1:]
    assert LanguageModel(model, tokenizer, end="o").end_token_id == tokenizer.convert_tokens_to_ids("o")
    assert LanguageModel(model, tokenizer, end="</s>").end_token_id == tokenizer.eos_token_id
    assert LanguageModel(model, tokenizer).end_token_id == tokenizer.eos_token_id
    for end in ("###", "dog", ""):
        with pytest.raises(ConfigError, match=f"llm_end: '{end}' must be one token"):
            LanguageModel(model, tokenizer, end=end)
    endless = AutoTokenizer.from_pretrained(parity_dir / "tiny_llama")
    endless.eos_token = None
    with pytest.raises(ConfigError, match="llm_end is not set, and the tokenizer has no end-of-sequence token"):
        LanguageModel(model, endless)

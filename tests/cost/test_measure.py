"""A step without values against the same step of a built model, and against counts by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import Dinov2Config, LlamaConfig

from lavis_evlgen.cost.measure import measure
from lavis_evlgen.peak_memory import PeakMemory

TEXT = 7
KINDS = [
    ("opt", {}),
    ("vicuna", {}),
    ("any", {"merged_skip": True}),
    ("opt", {"merge": "size"}),
    ("opt", {"connector": "qformer", "num_query_token": 5}),
    ("opt", {"connector": "linear"}),
    ("opt", {"freeze_vit": False}),
    ("video_opt", {"temporal": "contextualizer", "num_frames": 3, "time_embedding": True}),
    ("video_opt", {"temporal": "concat", "num_frames": 3}),
]
kinds = pytest.mark.parametrize("kind, overrides", KINDS, ids=lambda value: str(value))


def pictures(kind, batch):
    frames = (3,) if kind == "video_opt" else ()
    return {"video" if frames else "image": torch.randn(batch, 3, *frames, 56, 56)}


def step(model, kind, batch):
    """The loss of so many pictures with texts of `TEXT` tokens."""
    prompt = model.soft_prompt(pictures(kind, batch))
    logits, targets = model.language.target_logits(prompt, [([], [5] * TEXT)] * batch)
    return F.cross_entropy(logits, targets)


@pytest.fixture(scope="module")
def pair(tiny_model, skeleton, without_dropout):
    """A built model, and what a step of two of its skeleton takes."""
    measured = {}

    def build(kind, overrides):
        overrides = {**overrides, "connector_config": without_dropout}
        key = kind, str(overrides)
        if key not in measured:
            measured[key] = measure(skeleton(kind, **overrides), 2, TEXT, num_frames=3, half=False)
        return tiny_model(kind, **overrides), measured[key]

    return build


@kinds
def test_parameters_are_those_of_the_built_model(pair, skeleton, kind, overrides):
    def named(model):
        return {name: (tuple(p.shape), p.dtype, p.requires_grad) for name, p in model.named_parameters()}

    model, found = pair(kind, overrides)
    assert named(skeleton(kind, **overrides)) == named(model)
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    assert sum(part.trainable for part in found.parameters.values()) == sizes[True]
    assert sum(part.frozen for part in found.parameters.values()) == sizes[False]
    assert sum(part.frozen_bytes for part in found.parameters.values()) == 4 * sizes[False]
    assert "other" not in found.parameters


@kinds
def test_tokens_are_those_that_the_built_model_gives(pair, kind, overrides):
    model, found = pair(kind, overrides)
    with torch.no_grad():
        features = model.extract_features(pictures(kind, 1))
    assert found.tokens[0] == features.vision.shape[1]
    assert found.tokens[-1] == features.connector.shape[1]
    assert found.prompt_tokens == features.soft_prompt.shape[1]
    if hasattr(model.connector, "reduce_by_layer"):
        by_layer = [tokens.shape[1] for tokens, _ in model.connector.reduce_by_layer(features.vision)]
        assert found.tokens[1:] == by_layer == [13, 9, 5]
    elif overrides["connector"] == "qformer":
        assert found.tokens == [17, 5, 5, 5]


@kinds
def test_multiplications_and_memory_are_those_of_a_real_step(pair, kind, overrides):
    """A processor's fused attention does what a GPU's does, as the formulas here say; torch counts all the rest."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    formulas = {
        fused: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
        ),
    }
    model, found = pair(kind, overrides)
    model.train()
    with FlopCounterMode(display=False, custom_mapping=formulas) as forward:
        loss = step(model, kind, 2)
    with FlopCounterMode(display=False, custom_mapping=formulas) as backward:
        loss.backward()
    model.zero_grad()
    del loss
    with PeakMemory() as memory:
        step(model, kind, 2).backward()
    # two images, and two operations a multiply-accumulate
    assert sum(part.forward for part in found.macs.values()) * 4 == forward.get_total_flops()
    assert sum(part.backward for part in found.macs.values()) * 4 == backward.get_total_flops()
    assert found.step_bytes == pytest.approx(memory.peak, rel=0.03)


def test_a_linear_connector_by_hand(skeleton):
    """17 tokens of 64 -> 48 -> 64, then 24 with the text through a frozen OPT of 2 layers, 64 wide, 439 tokens."""
    found = measure(skeleton(connector="linear"), 4, TEXT)
    macs = found.macs
    assert (macs["input_proj"].forward, macs["input_proj"].backward) == (17 * 64 * 48, 2 * 17 * 64 * 48)
    assert (macs["prompt_proj"].forward, macs["prompt_proj"].backward) == (17 * 48 * 64, 2 * 17 * 48 * 64)
    assert macs["connector"].forward == 0
    linear = 2 * 24 * (4 * 64 * 64 + 2 * 64 * 128) + TEXT * 64 * 439  # logits where there is text alone
    attention = 2 * 2 * 24 * 24 * 64
    assert (macs["language"].linear, macs["language"].forward) == (linear, linear + attention)
    assert macs["language"].backward == linear + 2.5 * attention  # no gradient of weights; scores computed again
    patches = 16 * (3 * 14 * 14) * 64
    vit = 2 * 17 * (4 * 64 * 64 + 2 * 64 * 279)
    assert (macs["vision"].linear, macs["vision"].backward) == (patches + vit, 0)
    assert macs["vision"].forward == patches + vit + 2 * 2 * 17 * 17 * 64


def test_a_tomeformer_by_hand(skeleton):
    """17 tokens, 4 fewer after each layer's attention by matching half of them with the others; 48 wide, 96 inside."""
    account = measure(skeleton(), 2, TEXT).macs["connector"]
    before, after = [17, 13, 9], [13, 9, 5]
    linear = sum(before) * 4 * 48 * 48 + sum(after) * 2 * 48 * 96
    attention = sum(2 * n * n * 48 for n in before)
    matching = sum((n + 1) // 2 * (n // 2) * (48 // 4) for n in before)
    assert (account.linear, account.forward) == (linear, linear + attention + matching)
    assert account.backward == 2 * linear + 2.5 * attention  # no gradient of the choice


def test_a_frozen_vit_passes_gradients_only_for_a_contextualizer(skeleton):
    by_name = {
        temporal: measure(skeleton("video_opt", temporal=temporal, num_frames=3), 2, TEXT, num_frames=3)
        for temporal in ("mean", "contextualizer")
    }
    assert by_name["mean"].macs["vision"].backward == 0
    within = by_name["contextualizer"].macs
    assert within["vision"].forward == by_name["mean"].macs["vision"].forward
    # back from the last block to the first contextualizer: all but the first block's attention and the patches
    last = 3 * 17 * (4 * 64 * 64 + 2 * 64 * 279) + 4 * 3 * 17 * 17 * 64 * 2 / 2
    first = 3 * 17 * 2 * 64 * 279
    assert within["vision"].backward == pytest.approx(last + first, rel=0.05)
    assert within["temporal"].backward > 1.5 * within["temporal"].forward > 0


def test_checkpointing_trades_memory_for_multiplications(skeleton):
    options = {"temporal": "contextualizer", "num_frames": 3}
    plain, checkpointed = (
        measure(skeleton("video_opt", use_grad_checkpoint=on, **options), 8, TEXT, num_frames=3) for on in (False, True)
    )
    assert checkpointed.step_bytes < 0.8 * plain.step_bytes
    assert checkpointed.macs["vision"].forward == plain.macs["vision"].forward
    again = checkpointed.macs["vision"].backward - plain.macs["vision"].backward
    assert 0.5 * plain.macs["vision"].forward < again <= plain.macs["vision"].forward


def test_a_folder_with_a_configuration_alone_is_enough(skeleton, tmp_path):
    """A ViT with fused attention and a language model with grouped queries, in half precision, blocks checkpointed."""
    Dinov2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=70).save_pretrained(
        tmp_path / "vit"
    )
    LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    ).save_pretrained(tmp_path / "llm")
    found = measure(
        skeleton(
            "video_opt",
            vit_model=f"hf:{tmp_path / 'vit'}",
            vit_config=None,
            opt_model=None,
            llm_model=str(tmp_path / "llm"),
            temporal="contextualizer",
            use_grad_checkpoint=True,
            llm_precision="fp16",
        ),
        2,
        TEXT,
        num_frames=3,
    )
    layer = 17 * (4 * 64 * 64 + 2 * 64 * 256) + 2 * 17 * 17 * 64
    assert found.macs["vision"].forward == 3 * (16 * 3 * 14 * 14 * 64 + 2 * layer)
    length = 1 + 5 + TEXT  # the beginning of a sequence, the soft prompt, the text
    linear = 2 * length * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96) + TEXT * 64 * 32000
    assert found.macs["language"].linear == linear
    attention = 2 * 2 * length * length * 64
    angles = length * 16 / 2 / 2  # of the rotary embedding: a product too, once for both images
    assert found.macs["language"].forward == linear + attention + angles
    assert found.macs["vision"].backward > found.macs["vision"].forward


def test_cached_features_leave_the_vit_out_of_the_step_but_not_out_of_its_row(skeleton):
    plain, cached = (measure(skeleton(), 8, TEXT, from_features=on) for on in (False, True))
    assert cached.macs == plain.macs
    assert cached.step_bytes <= plain.step_bytes


def test_half_precision_takes_less_memory_and_as_many_multiplications(skeleton):
    frozen = {"vit_precision": "fp16", "llm_precision": "fp16"}
    full, half = measure(skeleton(), 8, TEXT, half=False), measure(skeleton(**frozen), 8, TEXT)
    assert half.macs == full.macs
    for part in ("vision", "language"):
        assert half.parameters[part].frozen_bytes == full.parameters[part].frozen_bytes / 2
    assert half.step_bytes < 0.9 * full.step_bytes


def test_evaluation_has_no_backward_pass(skeleton):
    found = measure(skeleton(), 8, TEXT, trains=False)
    assert all(account.backward == 0 for account in found.macs.values())
    assert found.step_bytes < 0.8 * measure(skeleton(), 8, TEXT).step_bytes

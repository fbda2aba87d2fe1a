"""Clips: the contextualizer's four principles, its baselines, and any ViT below it."""

import math

import pytest
import torch
from lavis.common.registry import registry
from lavis.models import clip_vit
from omegaconf import OmegaConf
from tiny_vits import VITS
from torch.utils._python_dispatch import TorchDispatchMode

from lavis_evlgen.errors import ConfigError, WeightsError
from lavis_evlgen.models.temporal import Contextualizer, FrameAttention, build_temporal
from lavis_evlgen.models.vision import HuggingFaceTower, VisionTower, build_vision_tower

TOWERS = [*VITS, "dinov2, layer -2", "eva_vit", "clip_L"]


def build_tower(name, reference):
    """A seeded tiny tower of each kind that the image model takes."""
    torch.manual_seed(0)
    if name == "eva_vit":
        tower = build_vision_tower("eva_vit", vit_config=reference["vit_config"], image_size=56, vit_precision="fp32")
    elif name == "clip_L":
        encoder = clip_vit.VisionTransformer(56, 14, 32, 3, 2, use_grad_checkpointing=False)
        tower = VisionTower(encoder, 32, 56, 14, num_prefix_tokens=1)
        tower.sequence_first = True
    else:
        kind, *layer = name.split(", layer ")
        tower = HuggingFaceTower(VITS[kind]().eval(), 56, int(layer[0]) if layer else -1)
    tower.freeze()
    return tower


def trained(contextualizer, alpha=0.7):
    """Weights as after training: every alpha and every time embedding away from zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for block in contextualizer.blocks:
            block.alpha.fill_(alpha)
            for linear in (block.query, block.key):
                linear.weight.normal_(std=0.5)
            if block.time_embedding is not None:
                block.time_embedding.normal_(std=1.0)
    return contextualizer


def clips(frames=4, batch=2):
    return torch.randn(batch, frames, 3, 56, 56, generator=torch.Generator().manual_seed(2))


@pytest.fixture(params=TOWERS)
def tower(request, reference):
    return build_tower(request.param, reference)


def test_alpha_zero_is_the_image_model_bit_for_bit(tower):
    pixels = clips()
    images = tower(pixels.flatten(0, 1))
    contextualizer = Contextualizer(tower, time_embedding=True)
    contextualizer._num_frames = 4
    assert torch.equal(tower(pixels.flatten(0, 1)), images)
    mean = images.unflatten(0, (2, 4)).mean(1)
    assert torch.equal(contextualizer.encode(tower, pixels), mean)


def test_centered_leaves_a_static_video_alone(tower):
    still = clips(frames=1).expand(-1, 4, -1, -1, -1)
    images = tower(still.flatten(0, 1)).unflatten(0, (2, 4)).mean(1)
    centered = trained(Contextualizer(tower, centered=True, time_embedding=True))
    assert torch.equal(centered.encode(tower, still), images)
    moving = centered.encode(tower, clips())
    assert not torch.allclose(moving, tower_without_hooks(tower, clips()), atol=1e-2)


def tower_without_hooks(tower, pixels):
    """The plain tower's frame mean, whatever has been installed in it."""
    for block, norm in tower.blocks:
        norm._forward_pre_hooks.clear()
        block._forward_hooks.clear()
    return tower(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]).mean(1)


def test_the_official_form_changes_a_static_video(tower):
    still = clips(frames=1).expand(-1, 4, -1, -1, -1)
    official = trained(Contextualizer(tower))
    changed = official.encode(tower, still)
    assert not torch.allclose(changed, tower_without_hooks(tower, still), atol=1e-2)


@pytest.mark.parametrize("centered", [False, True])
def test_only_a_time_embedding_sees_the_order(tower, reference, centered):
    pixels = clips()
    order = [2, 0, 3, 1]
    plain = trained(Contextualizer(tower, centered=centered))
    torch.testing.assert_close(plain.encode(tower, pixels), plain.encode(tower, pixels[:, order]), rtol=0, atol=2e-5)
    tower_without_hooks(tower, pixels)
    timed = trained(Contextualizer(tower, centered=centered, time_embedding=True))
    assert (timed.encode(tower, pixels) - timed.encode(tower, pixels[:, order])).abs().max() > 1e-2


def test_frame_attention_is_the_papers_formula():
    torch.manual_seed(0)
    attention = FrameAttention(16)
    with torch.no_grad():
        attention.alpha.fill_(0.3)
    tokens = torch.randn(2, 3, 5, 16)
    expected = torch.empty_like(tokens)
    for clip in range(2):
        for place in range(5):
            x = tokens[clip, :, place]
            query, key = attention.query(x), attention.key(x)
            for head in range(8):
                q, k = query[:, head * 32 : head * 32 + 32], key[:, head * 32 : head * 32 + 32]
                weights = torch.softmax(q @ k.T / math.sqrt(256), dim=-1)
                expected[clip, :, place, head * 2 : head * 2 + 2] = 0.3 * weights @ x[:, head * 2 : head * 2 + 2]
    torch.testing.assert_close(attention(tokens), expected)


def test_centered_is_the_attention_minus_the_tokens():
    torch.manual_seed(0)
    official = FrameAttention(16)
    centered = FrameAttention(16, centered=True)
    with torch.no_grad():
        official.alpha.fill_(0.3)
    centered.load_state_dict(official.state_dict())
    tokens = torch.randn(2, 3, 5, 16)
    torch.testing.assert_close(centered(tokens), official(tokens) - 0.3 * tokens, rtol=0, atol=1e-6)


def test_other_lengths_interpolate_the_time_embedding():
    attention = FrameAttention(16, num_positions=4)
    with torch.no_grad():
        attention.alpha.fill_(1.0)
        attention.time_embedding.copy_(torch.arange(4.0)[:, None].expand(4, 16))
    tokens = torch.randn(1, 2, 3, 16)
    halved = FrameAttention(16, num_positions=2)
    halved.load_state_dict({**attention.state_dict(), "time_embedding": torch.tensor([[0.5], [2.5]]).expand(2, 16)})
    torch.testing.assert_close(attention(tokens), halved(tokens))
    assert attention(tokens[:, :1]).shape == (1, 1, 3, 16)


class Largest(TorchDispatchMode):
    """The most elements in any tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize("frames", [4, 8, 16])
def test_nothing_larger_than_the_blocks_own_activations(frames):
    width = 384
    attention = FrameAttention(width, num_positions=frames)
    tokens = torch.randn(1, frames, 65, width, requires_grad=True)
    with Largest() as largest:
        attention(tokens).sum().backward()
    assert largest.numel <= tokens.numel()  # the block's own largest, the MLP's hidden layer, is four times that


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_pass_the_frozen_vit(reference, checkpointing):
    def gradients(use_grad_checkpoint):
        torch.manual_seed(0)
        tower = build_vision_tower(
            "eva_vit",
            vit_config=reference["vit_config"],
            image_size=56,
            vit_precision="fp32",
            use_grad_checkpoint=use_grad_checkpoint,
        )
        module = trained(Contextualizer(tower, time_embedding=True))
        module.encode(tower, clips()).square().sum().backward()
        assert all(parameter.grad is None for parameter in tower.parameters())
        assert not module._updates  # nothing is kept after the step
        return [parameter.grad for parameter in module.parameters()]

    found = gradients(checkpointing)
    assert all(grad is not None and grad.abs().max() > 0 for grad in found)
    for one, other in zip(found, gradients(False), strict=True):
        torch.testing.assert_close(one, other)


def test_alpha_alone_moves_first(tower):
    """At the start query and key have no gradient, since alpha is zero; alpha has."""
    module = Contextualizer(tower)
    module.encode(tower, clips()).square().sum().backward()
    assert all(block.alpha.grad.abs() > 0 for block in module.blocks)
    assert all(block.query.weight.grad.abs().max() == 0 for block in module.blocks)


@pytest.mark.parametrize("temporal", ["contextualizer", "mean"])
def test_still_clips_give_the_image_models_outputs(tiny_model, parity_dir, batch, temporal):
    """An image checkpoint loads into a video model unchanged, and nothing has to be aligned anew."""
    weights = {"load_pretrained": True, "pretrained": str(parity_dir / "liptome_opt.pth")}
    image_model = tiny_model("opt", **weights)
    video_model = tiny_model("video_opt", temporal=temporal, **weights)
    still = {**batch, "video": batch["image"][:, :, None].expand(-1, -1, 4, -1, -1)}
    del still["image"]
    with torch.no_grad():
        assert torch.equal(video_model.soft_prompt(batch), image_model.soft_prompt(batch))
        torch.testing.assert_close(video_model.soft_prompt(still), image_model.soft_prompt(batch), rtol=0, atol=1e-5)
        assert float(video_model(still)["loss"]) == pytest.approx(float(image_model(batch)["loss"]), rel=1e-5)
    assert video_model.generate(still, num_beams=3, max_length=8) == image_model.generate(
        batch, num_beams=3, max_length=8
    )


def test_concat_puts_the_frames_prompts_in_a_row(tiny_model):
    image_model, video_model = tiny_model("opt"), tiny_model("video_opt", temporal="concat")
    video = clips(frames=3).transpose(1, 2)
    with torch.no_grad():
        prompt = video_model.soft_prompt({"video": video})
        frames = [image_model.soft_prompt({"image": video[:, :, t]}) for t in range(3)]
    torch.testing.assert_close(prompt, torch.cat(frames, dim=1))
    assert len(video_model.generate({"video": video}, num_beams=2, max_length=4)) == 2


def test_mean_averages_the_frames_tokens(tiny_model):
    image_model, video_model = tiny_model("opt"), tiny_model("video_opt", temporal="mean")
    video = clips(frames=3).transpose(1, 2)
    with torch.no_grad():
        tokens = torch.stack([image_model.vision(video[:, :, t]) for t in range(3)]).mean(0)
        found = video_model.extract_features({"video": video})
    torch.testing.assert_close(found.vision, image_model.ln_vision(tokens))
    assert found.source_map.shape == (2, 17)


@pytest.mark.parametrize("kind", ["video_opt", "video"])
@pytest.mark.parametrize("temporal", ["contextualizer", "mean", "concat"])
def test_questions_about_clips(tiny_model, kind, temporal):
    model = tiny_model(kind, temporal=temporal, num_frames=2)
    video = clips(frames=2, batch=3).transpose(1, 2)
    questions = ["what happens?", "how many dogs run?", "who?"]
    answers = model.predict_answers(
        {"video": video, "text_input": questions}, num_beams=2, max_len=4, prompt="Q: {} A:"
    )
    prompts = [f"Q: {question} A:" for question in questions]
    continued = model.generate(
        {"video": video, "prompt": prompts}, num_beams=2, max_length=4, min_length=1, length_penalty=-1.0
    )
    assert answers == continued
    assert len(answers) == 3


def test_what_trains(tiny_model):
    image_model = tiny_model("opt")
    video_model = tiny_model("video_opt", time_embedding=True)
    added = set(video_model.trainable_state_dict()) - set(image_model.trainable_state_dict())
    parts = ("alpha", "query.weight", "query.bias", "key.weight", "key.bias", "time_embedding")
    assert added == {f"temporal.blocks.{block}.{part}" for block in range(2) for part in parts}
    assert set(tiny_model("video_opt", temporal="mean").trainable_state_dict()) == set(
        image_model.trainable_state_dict()
    )


def test_learning_rates(tiny_model):
    model = tiny_model("video_opt", time_embedding=True, temporal_lr_scale=20.0, connector_lr_scale=0.1)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {
        names[parameter]: (group["lr_scale"], group["weight_decay"])
        for group in model.optimizer_groups(0.05)
        for parameter in group["params"]
    }
    assert found["temporal.blocks.0.alpha"] == found["temporal.blocks.1.time_embedding"] == (20.0, 0.0)
    assert found["temporal.blocks.0.query.weight"] == found["prompt_proj.weight"] == (1.0, 0.05)
    assert {found[name] for name in found if name.startswith("connector.encoder.")} == {(0.1, 0.05), (0.1, 0.0)}


def test_the_language_model_follows_the_configuration(tiny_model, tiny_config, parity_dir, tmp_path):
    assert type(tiny_model("video_opt").language).__name__ == "OPT"
    assert type(tiny_model("video").language).__name__ == "LanguageModel"
    assert type(tiny_model("video", llm_family="vicuna").language).__name__ == "Vicuna"
    named = tmp_path / "vicuna-7b-v1.3"
    named.symlink_to(parity_dir.absolute() / "tiny_llama")
    assert type(tiny_model("video", llm_model=str(named)).language).__name__ == "Vicuna"


def test_the_official_names_say_which_language_model(tiny_config, parity_dir):
    """Also beside the OPT of a model type's file, and in a folder that is not called Vicuna."""
    both = tiny_config("video_opt", llm_model=str(parity_dir / "tiny_llama"))
    build = lambda name: registry.get_model_class(name).from_config(OmegaConf.create(both))  # noqa: E731
    assert type(build("liptome_video_vicuna").language).__name__ == "Vicuna"
    assert type(build("liptome_video_opt").language).__name__ == "OPT"
    with pytest.raises(ConfigError, match=r"model.opt_model .* and model.llm_model .* are both set .* to null"):
        build("evlgen_video")
    parts = {key: both[key] for key in both if key != "opt_model"}
    for model_type in ("pretrain_vicuna7b", "pretrain_vicuna13b"):
        options = {**parts, "num_layers": None, "pretrained": None}
        model = registry.get_model_class("evlgen_video").from_pretrained(model_type, **options)
        assert type(model.language).__name__ == "Vicuna"


def test_video_checkpoints_and_other_models(tiny_model, parity_dir, tmp_path):
    official = {"load_pretrained": True, "pretrained": str(parity_dir / "liptome_video_opt.pth")}
    model = tiny_model("video_opt", time_embedding=True, **official)
    assert model.temporal.blocks[0].alpha.item() == pytest.approx(-0.0857029)
    with pytest.raises(WeightsError, match=r"belong to another model, first temporal\.blocks\.0\.alpha"):
        tiny_model("opt", **official)
    with pytest.raises(WeightsError, match="belong to another model"):
        tiny_model("video_opt", temporal="mean", **official)
    weights = model.trainable_state_dict()
    del weights["temporal.blocks.1.query.bias"]
    with pytest.raises(WeightsError, match=r"missing, first temporal\.blocks\.1\.query\.bias"):
        model.load_trainable_state_dict(weights)


def test_errors(tiny_model, reference):
    with pytest.raises(ConfigError, match="takes images"):
        tiny_model("opt").soft_prompt({"video": clips().transpose(1, 2)})
    with pytest.raises(ConfigError, match="'contextualiser' is unknown; choose contextualizer"):
        tiny_model("video_opt", temporal="contextualiser")
    with pytest.raises(ConfigError, match="not of mean"):
        tiny_model("video_opt", temporal="mean", centered=True)
    with pytest.raises(ConfigError, match="num_frames: 0"):
        tiny_model("video_opt", num_frames=0)
    with pytest.raises(ConfigError, match="width 36 is no multiple of"):
        FrameAttention(36)
    with pytest.raises(ConfigError, match="no pre-norm blocks found in Conv2d"):
        build_temporal("contextualizer", VisionTower(torch.nn.Conv2d(3, 16, 14, 14), 16, 56, 14, 0))

"""Text guidance in ViTs of transformers, against LAVIS's ViT with the same weights and against full attention."""

import pytest
import torch
from lavis.models.vit import VisionTransformerEncoder
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    RobertaConfig,
    RobertaModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.elip.attention import cls_attention
from lavis_evlgen.models.elip.clip import METER, TextGuidedBlocks, clip_guide, cls_guide
from lavis_evlgen.models.elip.guidance import Guidance
from lavis_evlgen.models.elip.start import state_of_transformers
from lavis_evlgen.models.elip.vit import TextGuidedViT
from lavis_evlgen.models.vit_blocks import checkpoint_blocks, find_blocks

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "attn_implementation": "eager",
}
SMALL = Guidance((1, 2, 5), (0.9, 0.65, 0.4))  # 16 patches: 14, 10, 6 of them stay


def vit(kind="clip", seed=0, **options):
    torch.manual_seed(seed)
    sizes = {**SIZES, **options}
    models = {
        "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**sizes, intermediate_size=48)),
        "vit": lambda: ViTModel(ViTConfig(**sizes, intermediate_size=96, layer_norm_eps=1e-6), add_pooling_layer=False),
        "dinov2": lambda: Dinov2Model(Dinov2Config(**sizes, mlp_ratio=4)),
        "registers": lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes, mlp_ratio=2)),
    }
    model = models[kind]()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.15)
    return model.eval()


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def guide():
    return torch.randn(3, 24, generator=torch.Generator().manual_seed(2)) * 3


KINDS = ["clip", "vit", "dinov2", "registers"]


@pytest.mark.parametrize("kind", KINDS)
def test_cls_attention_is_that_of_the_block(kind, pixels):
    encoder = vit(kind)
    entering = []
    for block, _ in find_blocks(encoder):
        block.register_forward_pre_hook(lambda _block, args: entering.append(args[0]))
    attentions = encoder(pixels, output_attentions=True).attentions
    for (block, _), tokens, attention in zip(find_blocks(encoder), entering, attentions, strict=True):
        expected = attention[:, :, 0].mean(1)
        assert expected.std() > 0.01
        torch.testing.assert_close(cls_attention(block, tokens), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lookahead", ["official", 1])
def test_tokens_are_reduced_while_there_is_a_guide(kind, lookahead, pixels, guide):
    encoder = vit(kind)
    prefix = 5 if kind == "registers" else 1
    full = encoder(pixels).last_hidden_state
    names = list(encoder.state_dict())
    guided = TextGuidedBlocks(encoder, Guidance(SMALL.positions, SMALL.keep, lookahead=lookahead))
    assert torch.equal(encoder(pixels).last_hidden_state, full) and list(encoder.state_dict()) == names
    with guided.by(guide):
        reduced = encoder(pixels, output_hidden_states=True)
    counts = [state.shape[1] - prefix for state in reduced.hidden_states]
    assert counts[:6] == [16, 16, 15, 11, 11, 11] and counts[6] == 7  # a state is what leaves a block
    assert guided.source_map().target.shape == (3, prefix + 16)
    assert guided.source_map().target[:, :prefix].tolist() == [list(range(prefix))] * 3
    with guided.by(None):
        assert torch.equal(encoder(pixels).last_hidden_state, full)
    guided.remove()
    with guided.by(guide):
        assert torch.equal(encoder(pixels).last_hidden_state, full)


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
@pytest.mark.parametrize("lookahead", ["official", 1, 2])
def test_same_as_lavis_vit_with_the_same_weights(kind, lookahead, pixels, guide):
    guidance = Guidance(SMALL.positions, SMALL.keep, lookahead=lookahead)
    theirs = vit(kind)
    ours = VisionTransformerEncoder(img_size=56, patch_size=14, embed_dim=24, depth=6, num_heads=2)
    ours.load_state_dict(state_of_transformers(theirs))
    TextGuidedViT.guide_with(ours, guidance)
    guided = TextGuidedBlocks(theirs, guidance)
    with guided.by(guide), ours.guided_by(guide):
        found, expected = theirs(pixels).last_hidden_state, ours.forward_features(pixels)
    assert found.shape == (3, 8, 24)
    assert torch.equal(guided.source_map().target, ours.source_map().target)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_meters_schedule():
    """CLIP's ViT-B/32 at 224 px has 49 patches; METER leaves its last block out."""
    encoder = vit("clip", num_hidden_layers=11, image_size=224, patch_size=32)
    guided = TextGuidedBlocks(encoder, METER)
    assert [METER.blocks_ahead(number, 11) for number in range(3)] == [2, 5, 2]
    text = RobertaModel(RobertaConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
                                      vocab_size=20), add_pooling_layer=False).train()  # fmt: skip
    tokens = {"input_ids": torch.tensor([[0, 7, 8, 2], [0, 9, 2, 1]])}
    guide = cls_guide(text, **tokens)
    assert text.training and torch.equal(guide, text.eval()(**tokens).last_hidden_state[:, 0])
    with guided.by(guide):
        out = encoder(torch.randn(2, 3, 224, 224)).last_hidden_state
    assert [reduction.num_out for reduction in guided.reductions] == [1 + 44 + 1, 1 + 34 + 1, 1 + 22 + 1]
    assert out.shape == (2, 24, 24)


def test_clip_is_guided_through_its_heads(pixels):
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": 30, "eos_token_id": 29, "max_position_embeddings": 8}
    vision = {**SIZES, "intermediate_size": 48}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).train()
    tokens = {"input_ids": torch.tensor([[1, 5, 6, 29], [1, 7, 29, 29], [1, 8, 9, 29]])}
    guide = clip_guide(model, **tokens)
    features = model.get_text_features(**tokens).detach()
    expected = features / features.norm(dim=-1, keepdim=True) @ model.visual_projection.weight
    torch.testing.assert_close(guide, expected.detach())
    guided = TextGuidedBlocks(model.vision_model, SMALL)
    with guided.by(guide):
        out = model(pixel_values=pixels, return_loss=True, **tokens)
    out.loss.backward()
    assert guided.source_map().num_out == 8
    assert model.vision_model.encoder.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0
    message = r"text guide is \(3, 16\), but there are 3 images with tokens of width 24"
    with pytest.raises(ConfigError, match=message), guided.by(torch.zeros(3, 16)):
        model.vision_model(pixels)


def test_activation_checkpointing(pixels, guide):
    gradients = []
    for save in (False, True):
        encoder = vit("clip").train()
        if save:
            checkpoint_blocks(encoder)
        guided = TextGuidedBlocks(encoder, SMALL)
        with guided.by(guide):
            loss = encoder(pixels).last_hidden_state.square().mean()
        loss.backward()
        gradients.append(encoder.vision_model.encoder.layers[0].mlp.fc1.weight.grad)
    torch.testing.assert_close(*gradients)
    encoder.gradient_checkpointing_enable()
    with pytest.raises(ConfigError, match="use lavis_evlgen.models.vit_blocks.checkpoint_blocks"), guided.by(guide):
        pass


def test_vits_that_cannot_be_guided_are_refused():
    siglip = SiglipVisionModel(SiglipVisionConfig(**SIZES, intermediate_size=48))
    with pytest.raises(ConfigError, match="SiglipVisionModel has no CLS token"):
        TextGuidedBlocks(siglip, SMALL)
    with pytest.raises(ConfigError, match="blocks 0 to 5"):
        TextGuidedBlocks(vit("clip"), Guidance())
    with pytest.raises(ConfigError, match="not of Linear"):
        cls_attention(torch.nn.Linear(2, 2), torch.zeros(1, 3, 2))

"""The reducing ViT against an explicit loop, its parent class, and the figures of the paper."""

import pytest
import torch
from lavis.models.vit import VisionTransformerEncoder

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.elip.attention import cls_attention
from lavis_evlgen.models.elip.guidance import Guidance, look_ahead
from lavis_evlgen.models.elip.vit import TextGuidedViT
from lavis_evlgen.models.vit_blocks import checkpoint_blocks


def vit(seed=0, image_size=64, depth=12, width=24, **options):
    """LAVIS's encoder, tiny: 16 patches at 64 px. Its own weights are so small that all attention would be equal."""
    torch.manual_seed(seed)
    encoder = VisionTransformerEncoder(img_size=image_size, embed_dim=width, depth=depth, num_heads=3, **options)
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if name.endswith(("weight", "bias")) and "norm" not in name:
                weight.mul_(8).add_(torch.randn_like(weight) * 0.05)
    encoder.vision_width = width
    return encoder


def guided(guidance=None, **options):
    return TextGuidedViT.guide_with(vit(**options), guidance or Guidance())


@pytest.fixture
def images():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def guide():
    return torch.randn(3, 24, generator=torch.Generator().manual_seed(2)) * 2


def true_attention(block, tokens):
    """The whole attention [B, heads, N, N] that LAVIS's block computes when it is run."""
    block(tokens.detach().requires_grad_(), register_hook=True)
    return block.attn.get_attention_map().detach()


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_cls_attention_is_that_inside_the_block(qkv_bias):
    (block,) = vit(depth=1, qkv_bias=qkv_bias).blocks
    tokens = torch.randn(2, 9, 24) * 3
    expected = true_attention(block, tokens)[:, :, 0].mean(1)
    assert expected.std() > 0.02  # far from uniform
    torch.testing.assert_close(cls_attention(block, tokens), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_look_ahead_equals_running_the_copy_and_reading_its_attention(guide, depth):
    blocks = vit(depth=depth).blocks
    tokens = torch.randn(3, 9, 24)
    copy = tokens.clone()
    copy[:, 0] = 0.8 * copy[:, 0] + 0.2 * guide
    for block in blocks[:-1]:
        copy = block(copy)
    expected = true_attention(blocks[-1], copy)[:, :, 0].mean(1)
    found = look_ahead(tokens, guide, list(blocks), 0.8, lambda block, tokens: block(tokens))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def explicit(encoder, images, guide, positions, lengths, keep):
    """ELIP, token by token, as a reader would do it on paper."""
    tokens = encoder.patch_embed(images)
    tokens = torch.cat([encoder.cls_token.expand(len(images), 1, -1), tokens], 1) + encoder.pos_embed
    num_patches = tokens.shape[1] - 1
    for number, block in enumerate(encoder.blocks):
        if number in positions:
            which = positions.index(number)
            kept = int(keep[which] * num_patches)
            copy = tokens.detach().clone()
            copy[:, 0] = 0.8 * copy[:, 0] + 0.2 * guide
            for ahead in range(lengths[which] - 1):
                copy = encoder.blocks[number + ahead](copy)
            scores = true_attention(encoder.blocks[number + lengths[which] - 1], copy)[:, :, 0].mean(1)[:, 1:]
            rows = []
            for row, score in zip(tokens, scores, strict=True):
                ranked = sorted(range(len(score)), key=lambda i, score=score: -float(score[i]))
                best, others = sorted(ranked[:kept]), ranked[kept:]
                total = sum(float(score[i]) for i in others) + 1e-6
                fused = sum(row[1 + i] * (float(score[i]) / total) for i in others)
                rows.append(torch.stack([row[0], *(row[1 + i] for i in best), fused]))
            tokens = torch.stack(rows)
        tokens = block(tokens)
    return encoder.norm(tokens)


@pytest.mark.parametrize(("lookahead", "lengths"), [("official", (2, 6, 2)), (1, (1, 1, 1)), (3, (3, 3, 2))])
def test_outputs_and_gradients_equal_an_explicit_loop(images, guide, lookahead, lengths):
    upstream = torch.randn(3, 8, 24, generator=torch.Generator().manual_seed(3))
    plain = vit()
    expected = explicit(plain, images, guide, (2, 4, 10), lengths, (0.90, 0.65, 0.40))
    (expected * upstream).sum().backward()
    encoder = guided(Guidance(lookahead=lookahead))
    with encoder.guided_by(guide):
        found = encoder.forward_features(images)
    (found * upstream).sum().backward()
    assert found.shape == (3, 1 + 6 + 1, 24)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for (name, ours), theirs in zip(encoder.named_parameters(), plain.parameters(), strict=True):
        scale = theirs.grad.abs().max()
        torch.testing.assert_close(ours.grad / scale, theirs.grad / scale, rtol=1e-3, atol=1e-4, msg=name)


def entering(encoder):
    """Counts of tokens that enter the blocks, filled as the encoder runs."""
    counts = []
    for block in encoder.blocks:
        block.register_forward_pre_hook(lambda _block, inputs: counts.append(inputs[0].shape[1]))
    return counts


@pytest.mark.parametrize(
    ("image_size", "counts", "removed"),
    [
        (256, [257] * 2 + [232] * 2 + [168] * 6 + [104] * 2, 28.9),
        (224, [197] * 2 + [178] * 2 + [129] * 6 + [80] * 2, 28.8),
    ],
)
def test_token_counts_of_the_paper(image_size, counts, removed):
    encoder = guided(Guidance(lookahead=1), image_size=image_size)  # the look-ahead runs no block
    entered = entering(encoder)
    with torch.no_grad(), encoder.guided_by(torch.randn(1, 24)):
        out = encoder.forward_features(torch.randn(1, 3, image_size, image_size))
    assert entered == counts and out.shape[1] == counts[-1]
    assert round(100 * (1 - sum(entered) / (12 * counts[0])), 1) == removed


def test_official_look_ahead_runs_the_stage_but_its_last_block(images, guide):
    encoder = guided()
    entered = entering(encoder)
    with encoder.guided_by(guide):
        encoder.forward_features(images)
    # blocks 0, 1; look-ahead in 2; blocks 2, 3; look-ahead in 4 … 8; blocks 4 … 9; look-ahead in 10; blocks 10, 11
    assert entered == [17] * 2 + [17] + [16] * 2 + [16] * 5 + [12] * 6 + [12] + [8] * 2


def test_without_a_guide_it_is_its_parent(images):
    plain, encoder = vit(), guided()
    assert list(encoder.state_dict()) == list(plain.state_dict())
    encoder.load_state_dict(plain.state_dict())
    assert torch.equal(encoder.forward_features(images), plain.forward_features(images))
    assert torch.equal(encoder(images), plain(images))
    with encoder.guided_by(None):
        assert torch.equal(encoder.forward_features(images), plain.forward_features(images))
    with encoder.guided_by(torch.randn(3, 24)):  # called as a module it never reduces: so do momentum encoders
        assert torch.equal(encoder(images), plain(images))


@pytest.mark.parametrize("lookahead", ["official", 1])
def test_keep_ratios_of_one_change_nothing(images, guide, lookahead):
    plain, encoder = vit(drop_path_rate=0.3), guided(Guidance(keep=(1, 1, 1), lookahead=lookahead), drop_path_rate=0.3)
    outputs = []
    for model in (plain, encoder):
        torch.manual_seed(5)
        if model is encoder:
            with encoder.guided_by(guide):
                outputs.append(model.train().forward_features(images))
        else:
            outputs.append(model.train().forward_features(images))
        outputs[-1].square().mean().backward()
    assert torch.equal(*outputs)  # so the look-ahead has drawn no random number either
    assert all(module.training for module in encoder.modules())
    for ours, theirs in zip(encoder.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("how", ["lavis", "ours"])
def test_activation_checkpointing_gives_the_same_gradients_down_to_block_0(images, guide, how):
    lavis = {"use_grad_checkpointing": True, "ckpt_layer": 12} if how == "lavis" else {}
    plain, saving = guided(drop_path_rate=0.2), guided(drop_path_rate=0.2, **lavis)
    if how == "ours":
        checkpoint_blocks(saving)
    for encoder in (plain, saving):
        torch.manual_seed(6)
        with encoder.train().guided_by(guide):
            loss = encoder.forward_features(images).square().mean()
        loss.backward()  # the guide is gone by now
    assert plain.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    for (name, ours), theirs in zip(saving.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def test_text_decides_what_stays_and_gets_no_gradient(images):
    encoder = guided(Guidance(vision_share=0.2))
    texts = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(7)) * 4
    kept = []
    for text in texts.requires_grad_():
        with encoder.guided_by(text):
            encoder.forward_features(images).sum().backward()
        kept.append(encoder.source_map().target)
    assert texts.grad is None
    assert not torch.equal(*kept)
    assert encoder._guide is None


def test_source_map_says_where_the_patches_went(images, guide):
    encoder = guided()
    assert encoder.source_map() is None
    with encoder.guided_by(guide):
        encoder.forward_features(images)
    source = encoder.source_map()
    assert (source.target.shape, source.num_out) == ((3, 17), 8)
    assert [reduction.num_out for reduction in encoder.reductions] == [16, 12, 8]
    assert all(set(row.tolist()) == set(range(8)) for row in source.target)
    assert (source.target[:, 0] == 0).all()


def test_begin_and_finish_are_the_two_halves(images, guide):
    encoder = guided(Guidance(lookahead=1))
    with encoder.guided_by(guide):
        whole = encoder.forward_features(images)
    tokens = encoder.begin(images)
    torch.testing.assert_close(encoder.finish(tokens, guide), whole)
    assert torch.equal(encoder.finish(tokens, None), encoder.forward_features(images))
    # one image for several texts
    pairs = encoder.finish(tokens[:1].expand(3, -1, -1), guide)
    torch.testing.assert_close(pairs[:1], whole[:1])


def test_random_control_ignores_the_text(images, guide):
    encoder = guided(Guidance(lookahead="random"))
    kept = []
    for text in (guide, -guide):
        torch.manual_seed(8)
        with encoder.guided_by(text):
            encoder.forward_features(images)
        kept.append(encoder.source_map().target)
    assert torch.equal(*kept) and encoder.source_map().num_out == 8


def test_the_guide_is_gone_after_an_error(images, guide):
    encoder = guided()
    with (
        pytest.raises(ConfigError, match=r"text guide is \(2, 24\), but the ViT has 3 images"),
        encoder.guided_by(guide[:2]),
    ):
        encoder.forward_features(images)
    assert encoder._guide is None
    with pytest.raises(ConfigError, match=r"tokens of width 24: text encoder and ViT must be of the same width"):
        encoder.finish(encoder.begin(images), torch.randn(3, 16))


def test_bf16(images, guide):
    encoder = guided()
    with torch.autocast("cpu", torch.bfloat16), encoder.guided_by(guide):
        loss = encoder.forward_features(images).square().mean()
    loss.backward()
    assert torch.isfinite(loss) and encoder.source_map().num_out == 8


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"elip_keep": [0.9, 0.5]}, "elip_positions has 3 entries and elip_keep 2"),
        ({"elip_keep": [0.5, 0.9, 0.1]}, "elip_keep: .* do not rise"),
        ({"elip_positions": [4, 2, 10]}, "elip_positions: .* rising order"),
        ({"elip_keep": 0.9}, "elip_keep: 0.9 must be a list of numbers, such as"),
        ({"elip_positions": None}, "elip_positions: None must be a list"),
        ({"elip_positions": [2, 4.5, 10]}, "elip_positions: .* rising order"),
        ({"elip_lambda": 1.2}, "elip_lambda: 1.2"),
        ({"elip_lookahead": "oficial"}, "elip_lookahead: 'oficial' is unknown"),
        ({"elip_lookahead": 0}, "elip_lookahead: 0 is unknown"),
    ],
)
def test_configuration_errors_name_the_key(keys, message):
    with pytest.raises(ConfigError, match=message):
        Guidance.from_config(keys)


def test_configuration():
    assert Guidance.from_config({}) == Guidance((2, 4, 10), (0.9, 0.65, 0.4), 0.8, "official")
    meter = Guidance.from_config({"elip_positions": [2, 4, 9], "elip_keep": [0.9, 0.7, 0.45], "elip_lookahead": 1})
    assert [meter.blocks_ahead(i, 11) for i in range(3)] == [1, 1, 1]
    official = Guidance((2, 4, 9), (0.9, 0.7, 0.45))
    assert [official.blocks_ahead(i, 11) for i in range(3)] == [2, 5, 2]
    with pytest.raises(ConfigError, match="blocks 0 to 9"):
        TextGuidedViT.guide_with(vit(depth=10), Guidance())

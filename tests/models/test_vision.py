"""Vision towers: LAVIS's ViTs and Hugging Face's, at tiny size."""

import pytest
import torch
from lavis.models import clip_vit
from tiny_vits import MLP, SIZE, VITS
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel

from lavis_evlgen.errors import ConfigError, WeightsError
from lavis_evlgen.models import vision
from lavis_evlgen.models.vision import build_vision_tower


def save(folder, kind):
    torch.manual_seed(0)
    if kind == "clip":
        model = CLIPModel(
            CLIPConfig(vision_config={**SIZE, **MLP}, text_config={"hidden_size": 32, "num_hidden_layers": 1})
        )
    else:
        model = VITS[kind]()
    model.save_pretrained(folder / kind)
    return model.eval()


@pytest.mark.parametrize(("kind", "prefix"), [("dinov2", 1), ("registers", 5), ("clip", 1), ("siglip", 0), ("vit", 1)])
def test_hugging_face_towers(tmp_path, kind, prefix):
    model = save(tmp_path, kind)
    model = model.vision_model if kind == "clip" else model
    images = torch.randn(2, 3, 56, 56)
    tower = build_vision_tower(f"hf:{tmp_path / kind}", image_size=56, vit_precision="fp32")
    assert (tower.num_prefix_tokens, tower.num_tokens, tower.grid) == (prefix, 16 + prefix, (4, 4))
    tokens = tower(images)
    torch.testing.assert_close(tokens, model(pixel_values=images).last_hidden_state)
    earlier = build_vision_tower(
        f"hf:{tmp_path / kind}", image_size=56, vit_precision="fp32", vit_config={"feature_layer": -2}
    )
    hidden = model(pixel_values=images, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(earlier(images), hidden)
    # another resolution resizes the position table
    larger = build_vision_tower(f"hf:{tmp_path / kind}", image_size=84, vit_precision="fp32")
    assert larger(torch.randn(1, 3, 84, 84)).shape == (1, 36 + prefix, 32) == (1, larger.num_tokens, 32)


def test_a_tower_stays_frozen(tmp_path):
    save(tmp_path, "dinov2")
    frozen = build_vision_tower(f"hf:{tmp_path / 'dinov2'}", image_size=56, vit_precision="fp32").train()
    assert not any(p.requires_grad for p in frozen.parameters()) and not any(m.training for m in frozen.modules())
    assert not frozen(torch.randn(1, 3, 56, 56)).requires_grad
    free = build_vision_tower(f"hf:{tmp_path / 'dinov2'}", image_size=56, vit_precision="fp32", freeze_vit=False)
    assert free.train().training and free(torch.randn(1, 3, 56, 56)).requires_grad


@pytest.mark.parametrize("layer", [-1, -2])
@pytest.mark.parametrize("kind", [*VITS, "eva_vit"])
def test_a_tower_that_trains(tmp_path, reference, kind, layer):
    """Its weights are in fp32, and each that trains gets a gradient: DDP stops a run where one does not."""
    options = {"vit_config": reference["vit_config"]}
    if kind != "eva_vit":
        VITS[kind]().save_pretrained(tmp_path)
        options = {"vit_config": {"feature_layer": layer}}
    name = kind if kind == "eva_vit" else f"hf:{tmp_path}"
    tower = build_vision_tower(name, image_size=56, vit_precision="bf16", freeze_vit=False, **options).train()
    with torch.autocast("cpu", torch.bfloat16):
        tower(torch.randn(2, 3, 56, 56)).square().sum().backward()
    trained = {name for name, parameter in tower.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in tower.named_parameters() if parameter.grad is not None}
    assert len(trained) > len(list(tower.parameters())) // 4
    assert {parameter.dtype for parameter in tower.parameters()} == {torch.float32}


def test_fingerprint_tells_weights_apart(tmp_path):
    save(tmp_path, "dinov2")
    build = lambda size: build_vision_tower(f"hf:{tmp_path / 'dinov2'}", image_size=size, vit_precision="fp32")  # noqa: E731
    first, same, larger = build(56), build(56), build(84)
    assert first.fingerprint() == same.fingerprint() != larger.fingerprint()
    next(same.encoder.parameters()).data.view(-1)[0] += 1e-3
    assert first.fingerprint() != same.fingerprint()


def test_clip_l_from_a_local_file(tmp_path, monkeypatch):
    """LAVIS's clip_L class at tiny size: weights load from a file, the position table is resized."""
    monkeypatch.setattr(vision, "_CLIP_L", {"patch_size": 14, "width": 32, "layers": 3, "heads": 2})
    torch.manual_seed(0)
    whole = clip_vit.VisionTransformer(56, 14, 32, 4, 2, False)  # one block more than the tower uses
    torch.save(whole.state_dict(), tmp_path / "clip.pth")
    options = {"vit_precision": "fp32", "vit_weights": str(tmp_path / "clip.pth")}
    tower = build_vision_tower("clip_L", image_size=56, **options)
    assert tower(torch.randn(2, 3, 56, 56)).shape == (2, 17, 32)
    assert torch.equal(tower.encoder.conv1.weight, whole.conv1.weight)
    assert build_vision_tower("clip_L", image_size=84, **options)(torch.randn(1, 3, 84, 84)).shape == (1, 37, 32)


def test_missing_weights_name_file_and_key(tmp_path):
    with pytest.raises(WeightsError, match=r"vit_weights: there is no file .*nothing.pth"):
        build_vision_tower("eva_clip_g", vit_weights=str(tmp_path / "nothing.pth"))
    with pytest.raises(
        WeightsError, match=r"vit_model: cannot load 'no/such-vit'.*Set model.vit_model to a local folder"
    ):
        build_vision_tower("hf:no/such-vit")
    torch.save({"something": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="lacks .* tensors of this ViT"):
        build_vision_tower(
            "eva_vit",
            image_size=56,
            vit_weights=str(tmp_path / "other.pth"),
            vit_config={"patch_size": 14, "embed_dim": 32, "depth": 1, "num_heads": 2},
        )


def test_image_size_must_fit_the_patches(tmp_path):
    save(tmp_path, "dinov2")
    with pytest.raises(ConfigError, match="image_size: 60 is no multiple of the ViT's patch size 14"):
        build_vision_tower(f"hf:{tmp_path / 'dinov2'}", image_size=60)
    with pytest.raises(ConfigError, match="vit_config: unknown depth"):
        build_vision_tower(f"hf:{tmp_path / 'dinov2'}", image_size=56, vit_config={"depth": 2})


def test_clip_tower_holds_no_text_half(tmp_path):
    save(tmp_path, "clip")
    tower = build_vision_tower(f"hf:{tmp_path / 'clip'}", image_size=56, vit_precision="fp32")
    assert isinstance(tower.encoder, CLIPVisionModel)


@pytest.mark.parametrize("kind", ["eva_vit", "dinov2"])
def test_half_precision_weights(tmp_path, kind, monkeypatch):
    """fp16 as on a GPU, where LAVIS's ViTs mix fp16 weights with fp32 norms: close to fp32, without outer autocast."""
    save(tmp_path, "dinov2")
    name = "eva_vit" if kind == "eva_vit" else f"hf:{tmp_path / kind}"
    config = {"patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2, "qkv_bias": True}
    options = {"image_size": 56, "vit_config": config if kind == "eva_vit" else None}
    images = torch.randn(2, 3, 56, 56)
    torch.manual_seed(3)
    full = build_vision_tower(name, vit_precision="fp32", **options)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # fp16 is not chosen without a GPU
    torch.manual_seed(3)
    half = build_vision_tower(name, vit_precision="fp16", **options)
    assert half.dtype is torch.float16
    tokens = half(images)
    assert tokens.dtype is torch.float32
    torch.testing.assert_close(tokens, full(images), rtol=2e-2, atol=2e-2)

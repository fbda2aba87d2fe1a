"""Which maps there are for pictures and clips, before and after training."""

import json

import numpy as np
import pytest
import torch
from lavis.processors.alpro_processors import AlproVideoEvalProcessor
from lavis.processors.blip_processors import BlipImageEvalProcessor
from PIL import Image
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, SiglipVisionConfig, SiglipVisionModel
from video_files import number_of, write_clip

from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.datasets.frame_sampling import sample_frames
from lavis_evlgen.processors.video import VideoEvalProcessor
from lavis_evlgen.reports.tokens.map import source_maps
from lavis_evlgen.reports.tokens.states import AFTER, BEFORE, Layer, Shown, add_maps, frames_seen, map_layers, read

T = 3


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return torch.randn(1, 3, T, 56, 56, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    return str(write_clip(tmp_path_factory.mktemp("clip") / "numbers.mp4", 12))


def own_map(model, tokens: torch.Tensor) -> np.ndarray:
    """The final map of a ViT's tokens, by the connector alone: the 4 x 4 patches behind the CLS token."""
    with torch.no_grad():
        reduction = model.connector.reduce(model.ln_vision(tokens))[1]
    return reduction.target[0, 1:].reshape(4, 4).numpy()


def test_layers_of_a_picture(tiny_model, batch):
    model = tiny_model()
    layers = map_layers(model, {"image": batch["image"][:1]})
    assert [(each.name, each.num_tokens, each.maps.shape) for each in layers] == [
        ("layer 1", 13, (1, 4, 4)),
        ("layer 2", 9, (1, 4, 4)),
        ("layer 3", 5, (1, 4, 4)),
    ]
    with torch.no_grad():
        assert (layers[-1].maps[0] == own_map(model, model.vision(batch["image"][:1]))).all()
    (only,) = map_layers(tiny_model(connector="linear"), {"image": batch["image"][:1]})
    assert only.name == "connector" and only.maps[0].tolist() == np.arange(1, 17).reshape(4, 4).tolist()


@pytest.mark.parametrize("registers", [4, None])
def test_other_grids_of_patches(tiny_model, tmp_path, registers):
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    torch.manual_seed(0)
    if registers:
        vit = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**size, num_register_tokens=registers))
    else:
        vit = SiglipVisionModel(SiglipVisionConfig(**size, intermediate_size=64))  # no CLS token either
    vit.save_pretrained(tmp_path)
    model = tiny_model(vit_model=f"hf:{tmp_path}", vit_config=None)
    image = torch.randn(1, 3, 56, 56)
    prefix = 1 + registers if registers else 0
    (reduced,) = source_maps(model, image)
    (ids,) = map_layers(model, {"image": image})[-1].maps
    assert ids.ravel().tolist() == reduced[0, prefix:].tolist() and len(reduced[0]) == prefix + 16


def test_concat_has_a_map_for_every_frame(tiny_model, clip):
    model = tiny_model("video", temporal="concat")
    maps = map_layers(model, {"video": clip})[-1].maps
    with torch.no_grad():
        expected = [own_map(model, model.vision(clip[:, :, frame])) for frame in range(T)]
    assert (maps == np.stack(expected)).all() and (maps[0] != maps[1]).any()


def test_mean_and_contextualizer_have_one_map_for_all_frames(tiny_model, clip):
    model = tiny_model("video", temporal="mean")
    (shared,) = map_layers(model, {"video": clip})[-1].maps
    with torch.no_grad():
        mean = torch.stack([model.vision(clip[:, :, frame]) for frame in range(T)]).mean(dim=0)
    assert (shared == own_map(model, mean)).all()
    model = tiny_model("video", temporal="contextualizer")
    model.load_state_dict(tiny_model("video", temporal="mean").state_dict(), strict=False)
    assert (map_layers(model, {"video": clip})[-1].maps == shared).all(), "alpha is zero"
    for block in model.temporal.blocks:
        block.alpha.data.fill_(3.0)
        block.query.weight.data *= 100  # attention to one frame rather than the mean of all
    contextual = map_layers(model, {"video": clip})[-1].maps
    assert contextual.shape == (1, 4, 4) and (contextual != shared).any()


def test_the_page_can_say_what_the_maps_of_a_clip_are(tiny_model, clip_file):
    process = VideoEvalProcessor(image_size=56, num_frames=T)
    how = {name: read(tiny_model("video", temporal=name), process, clip_file).how for name in ("concat", "mean")}
    how["contextualizer"] = read(tiny_model("video"), process, clip_file).how
    assert "every frame has a map and tokens of its own" in how["concat"]
    assert "Frames pass the ViT one by one, and the mean over the frames is taken" in how["mean"]
    assert "the frames look at each other" in how["contextualizer"] and "the one map is drawn over each" in how["mean"]


def test_frames_are_those_that_the_processor_chose(tiny_model, clip_file):
    process = VideoEvalProcessor(image_size=96, num_frames=T)
    shown = read(tiny_model("video"), process, clip_file)
    assert [number_of(np.asarray(frame)) for frame in shown.frames] == sample_frames(12, T) == [2, 6, 10]
    assert shown.samples["video"].shape == (1, 3, T, 96, 96) and shown.visual_tokens == 17
    exact = torch.randint(0, 256, (T, 96, 96, 3), dtype=torch.uint8)
    seen = frames_seen(process, process.from_frames(exact))
    assert (np.stack(seen) == exact.numpy()).all()
    alpro = AlproVideoEvalProcessor(image_size=96, n_frms=T)
    seen = frames_seen(alpro, alpro.normalize(exact.permute(3, 0, 1, 2) / 255))
    assert (np.stack(seen) == exact.numpy()).all()


def test_a_model_of_pictures_takes_a_clip_frame_by_frame(tiny_model, clip_file):
    process, model = BlipImageEvalProcessor(image_size=56), tiny_model()
    shown = read(model, process, clip_file)
    assert [number_of(np.asarray(frame)) for frame in shown.frames] == sample_frames(12, 4) and "no clips" in shown.how
    add_maps(model, [shown])
    assert shown.num_maps == 4
    for frame, ids in zip(shown.frames, shown.states["as loaded"][-1].maps, strict=True):
        with torch.no_grad():
            assert (ids == own_map(model, model.vision(process(frame)[None]))).all()


def test_unreadable_files_are_told(tiny_model, tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"no video")
    (tmp_path / "x.png").write_bytes(b"no picture")
    pictures, process = tiny_model(), BlipImageEvalProcessor(image_size=56)
    for name in ("x.mp4", "x.png"):
        bad = read(pictures, process, str(tmp_path / name))
        assert isinstance(bad, BadSample) and bad.path.endswith(name) and bad.reason
    assert isinstance(read(tiny_model("video"), VideoEvalProcessor(56), str(tmp_path / "x.mp4")), BadSample)


def test_before_training_is_the_start_and_after_it_the_model(tiny_model, batch):
    trained, start = tiny_model(seed=0), tiny_model(seed=1).trainable_state_dict()
    shown = [Shown(str(n), [Image.new("RGB", (8, 8))], {"image": batch["image"][n : n + 1]}, 17) for n in range(2)]
    after = [map_layers(trained, each.samples) for each in shown]
    add_maps(trained, shown, {name: tensor.clone() for name, tensor in start.items()})
    trained.load_trainable_state_dict(start)
    for each, expected in zip(shown, after, strict=True):
        assert list(each.states) == [BEFORE, AFTER]
        pairs = zip(each.states[AFTER], expected, each.states[BEFORE], map_layers(trained, each.samples), strict=True)
        for found, layer, before, fresh in pairs:
            assert (found.maps == layer.maps).all() and (before.maps == fresh.maps).all()
        assert any((a.maps != b.maps).any() for a, b in zip(each.states[AFTER], each.states[BEFORE], strict=True))


def shown_by(*states: dict[str, list]) -> Shown:
    """A picture of 1 x 4 patches with maps given as {state: maps of the layers}."""
    (given,) = states
    layers = {
        state: [Layer(f"layer {n}", len(set(ids)), np.array([[ids]])) for n, ids in enumerate(maps, start=1)]
        for state, maps in given.items()
    }
    return Shown("x.png", [Image.new("RGB", (40, 10))], {}, 4, states=layers)


def test_figures_stand_by_state_and_layer():
    shown = shown_by({BEFORE: [[0, 0, 1, 2], [0, 0, 1, 1]], AFTER: [[0, 1, 2, 2], [0, 0, 0, 1]]})
    found = json.loads(json.dumps(shown.figures()))
    assert {key: found[key] for key in ("image", "frames", "maps", "visual_tokens")} == {
        "image": "x.png",
        "frames": 1,
        "maps": 1,
        "visual_tokens": 4,
    }
    assert [each["tokens"] for each in found["before_training"]["layers"]] == [3, 2]
    assert [each["largest"] for each in found["after_training"]["layers"]] == [2, 3]
    assert found["after_training"]["final_tokens"] == [
        {"map": 0, "token": 0, "patches": 3, "pieces": 1},
        {"map": 0, "token": 1, "patches": 1, "pieces": 1},
    ]
    # layer 1: no pair in common, chance 1/6 of 1; layer 2: one pair in common, as by chance
    assert found["agreement"] == pytest.approx([-0.2, 0.0])


def test_a_token_keeps_its_colour_while_others_merge_into_it():
    shown = shown_by({BEFORE: [[5, 5, 6, 6]], AFTER: [[0, 1, 1, 2], [3, 4, 4, 4], [7, 7, 7, 7]]})
    after, before = shown.ranks[AFTER], shown.ranks[BEFORE]
    assert after == [[{1: 0}], [{4: 0}], [{7: 0}]]
    assert before == [[{5: 0, 6: 1}]], "as many patches in common: the first token has the colour"

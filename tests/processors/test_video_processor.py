import pytest
import torch
import video_files as video
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from lavis_evlgen.datasets.clip_errors import ClipError
from lavis_evlgen.datasets.frame_sampling import sample_frames
from lavis_evlgen.datasets.video_reading import read_clip
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.processors.video import CLIP_MEAN, CLIP_STD, VideoEvalProcessor, VideoTrainProcessor

PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return video.write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", 50)


def build(name: str, **config):
    return registry.get_processor_class(f"evlgen_video_{name}").from_config(OmegaConf.create(config))


def shown(clip: torch.Tensor) -> list[int]:
    """Numbers that the frames of an unnormalised clip [3, T, H, W] show."""
    return video.numbers((255 * clip.permute(1, 2, 3, 0)).round().numpy())


def test_both_are_registered_with_lavis_defaults():
    assert registry.get_processor_class("evlgen_video_eval") is VideoEvalProcessor
    assert registry.get_processor_class("evlgen_video_train") is VideoTrainProcessor
    for cls, sampling in ((VideoEvalProcessor, "uniform"), (VideoTrainProcessor, "headtail")):
        processor = cls.from_config()
        assert (processor.image_size, processor.num_frames, processor.sampling) == (224, 4, sampling)


def test_evaluation_gives_every_frame_what_blip_image_eval_gives_a_picture(clip):
    processed = build("eval", image_size=48, num_frames=5)(str(clip))
    assert processed.shape == (3, 5, 48, 48) and processed.dtype == torch.float32 and processed.is_contiguous()
    of_picture = registry.get_processor_class("blip_image_eval").from_config(OmegaConf.create({"image_size": 48}))
    frames = [Image.fromarray(frame.numpy()) for frame in read_clip(clip, 5)]
    expected = torch.stack([of_picture(frame) for frame in frames], 1)
    # PIL and torchvision round a level apart at most here and there
    level = 1 / 255 / min(CLIP_STD)
    assert (processed - expected).abs().max() <= 3 * level and (processed - expected).abs().mean() < 0.1 * level
    assert torch.equal(processed, build("eval", image_size=48, num_frames=5)(clip))


def test_evaluation_squeezes_the_whole_picture_into_the_square(clip):
    processed = build("eval", image_size=64, num_frames=4, **PLAIN)(clip)
    assert shown(processed) == sample_frames(50, 4)
    assert processed.min() >= 0 and processed.max() <= 1


def test_normalisation_is_clips_or_the_given_one(clip):
    plain = build("eval", image_size=32, **PLAIN)(clip)
    normal = build("eval", image_size=32)(clip)
    mean, std = (torch.tensor(each).view(3, 1, 1, 1) for each in (CLIP_MEAN, CLIP_STD))
    assert torch.allclose(normal, (plain - mean) / std, atol=1e-5)
    own = build("eval", image_size=32, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.25])(clip)
    assert torch.allclose(own[2], (plain[2] - 0.5) / 0.25, atol=1e-5)


@pytest.mark.parametrize(("name", "key"), [("eval", "n_frms"), ("train", "n_frms"), ("eval", "num_frames")])
def test_lavis_name_of_the_number_of_frames_is_taken_too(clip, name, key):
    assert build(name, image_size=16, **{key: 7})(clip).shape == (3, 7, 16, 16)
    assert build(name, image_size=16, n_frms=7, num_frames=7).num_frames == 7
    with pytest.raises(ConfigError, match="num_frames: 4 and n_frms: 8 mean the same; remove one"):
        build(name, num_frames=4, n_frms=8)


@pytest.mark.parametrize("sampling", ["uniform", "headtail", "random"])
@pytest.mark.parametrize("name", ["eval", "train"])
def test_sampling_is_that_of_the_configuration(clip, name, sampling):
    processor = build(name, image_size=64, num_frames=6, sampling=sampling, **PLAIN)
    processor.scale = (1.0, 1.0)
    torch.manual_seed(5)
    expected = sample_frames(50, 6, sampling)
    torch.manual_seed(5)
    assert shown(processor(clip)) == expected


def test_training_cuts_all_frames_of_a_clip_alike():
    frames = torch.randint(0, 256, (1, 60, 80, 3), dtype=torch.uint8).expand(4, -1, -1, -1)
    processor = build("train", image_size=24, flip=True)
    torch.manual_seed(0)
    clips = [processor.from_frames(frames) for _ in range(20)]
    for clip in clips:
        assert all(torch.equal(clip[:, 0], clip[:, t]) for t in range(1, 4))
    assert any(not torch.equal(clips[0], clip) for clip in clips[1:])
    torch.manual_seed(0)
    assert torch.equal(processor.from_frames(frames), clips[0])


def test_training_at_full_scale_is_the_view_of_evaluation():
    frames = torch.randint(0, 256, (2, 37, 80, 3), dtype=torch.uint8)
    train = build("train", image_size=24, min_scale=1.0, max_scale=1.0)
    assert torch.equal(train.from_frames(frames), build("eval", image_size=24).from_frames(frames))


def test_crops_have_the_configured_share_of_the_frame_and_stay_inside():
    """Frames of ramps tell where a crop came from: red rises from left to right, green from top to bottom."""
    ramp = torch.linspace(0, 255, 400).round().to(torch.uint8)
    frames = torch.zeros(1, 200, 400, 3, dtype=torch.uint8)
    frames[..., 0], frames[..., 1] = ramp, ramp[::2, None]
    processor = build("train", image_size=64, num_frames=1, min_scale=0.3, max_scale=0.6, **PLAIN)
    torch.manual_seed(0)
    shares, ratios = [], []
    for _ in range(100):
        red, green = processor.from_frames(frames)[:2, 0]
        # the outermost pixels' centres lie half a pixel inside the crop
        width, height = (red[32, -1] - red[32, 0]) * 64 / 63, (green[-1, 32] - green[0, 32]) * 64 / 63
        shares.append(float(width * height))
        ratios.append(float(width / height))
    assert 0.28 < min(shares) < 0.35 and 0.55 < max(shares) < 0.63
    assert 0.7 < min(ratios) < 0.85 and 1.2 < max(ratios) < 1.4


def test_only_flip_mirrors():
    frames = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    frames[:, :, :16] = 255
    lefts = {}
    for flip in (False, True):
        processor = build("train", image_size=16, min_scale=1.0, flip=flip, **PLAIN)
        torch.manual_seed(0)
        lefts[flip] = sum(bool(processor.from_frames(frames)[0, 0, 0, 0] > 0.5) for _ in range(100))
    assert lefts[False] == 100 and 30 < lefts[True] < 70


@pytest.mark.parametrize("size", [(1, 1), (3, 500)])
def test_tiny_frames_survive_every_crop(size):
    frames = torch.full((2, *size, 3), 100, dtype=torch.uint8)
    processor = build("train", image_size=8, min_scale=0.01, max_scale=0.02, **PLAIN)
    for _ in range(20):
        assert torch.allclose(processor.from_frames(frames), torch.tensor(100 / 255))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sampling": "middle"}, "sampling: 'middle' is unknown"),
        ({"num_frames": 0}, "num_frames must be a whole number from 1 on, not 0"),
        ({"min_scale": 0.0}, "min_scale: 0.0, max_scale: 1.0: need 0 <"),
        ({"min_scale": 0.9, "max_scale": 0.5}, "min_scale: 0.9, max_scale: 0.5"),
    ],
)
def test_wrong_keys_are_named(config, message):
    with pytest.raises(ConfigError, match=message):
        build("train", **config)


def test_a_clip_that_cannot_be_read_says_why(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ClipError, match="damaged, or no video"):
        build("eval")(tmp_path / "text.mp4")

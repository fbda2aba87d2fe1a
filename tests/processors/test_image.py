import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from lavis_evlgen.processors.image import Blip2ImageEvalProcessor


def processed(name: str, **config) -> torch.Tensor:
    processor = registry.get_processor_class(name).from_config(OmegaConf.create(config))
    return processor(Image.new("RGB", (50, 40), (255, 0, 0)))


def test_blip2_image_eval_is_blip_image_eval_with_blip2s_size():
    assert registry.get_processor_class("blip2_image_eval") is Blip2ImageEvalProcessor
    assert processed("blip2_image_eval").shape == (3, 364, 364)
    assert Blip2ImageEvalProcessor.from_config()(Image.new("RGB", (5, 4))).shape == (3, 364, 364)
    assert torch.equal(processed("blip2_image_eval", image_size=24), processed("blip_image_eval", image_size=24))


def test_lists_from_yaml_are_taken_by_all_three_processors():
    for name in ("blip2_image_eval", "blip_image_eval", "blip2_image_train"):
        picture = processed(name, image_size=16, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.25])
        assert torch.allclose(picture.mean((1, 2)), torch.tensor([1.0, -1.0, -2.0]))

"""Misspelled keys and names are found wherever they stand; what LAVIS ships passes."""

from pathlib import Path

import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf

import lavis
from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.errors import ConfigError

PROJECTS = Path(lavis.__file__).parent / "projects"

GOOD = """
model: {arch: blip2_opt, model_type: pretrain_opt2.7b, freeze_vit: True, num_query_token: 32, load_pretrained: False}
datasets:
  coco_caption:
    type: default
    vis_processor: {train: {name: blip2_image_train, image_size: 224, min_scale: 0.5}, eval: {name: blip_image_eval}}
    text_processor: {train: {name: blip_caption, prompt: "a photo of ", max_words: 50}}
    build_info: {images: {storage: my/coco}, annotations: {any_split: {url: x, storage: y}}}
run: {task: captioning, runner: runner_evlgen, lr_sched: linear_warmup_cosine_lr, num_beams: 5, max_iters: 10}
"""


def problems(**changes: object) -> str:
    """The message for the good configuration with some keys (dots as double underscores) set."""
    config = OmegaConf.create(GOOD)
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    with pytest.raises(ConfigError) as error:
        check_config(config)
    return str(error.value)


def test_good_configuration_passes():
    check_config(OmegaConf.create(GOOD))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("modell", {}, "modell is unknown; did you mean 'model'?"),
        ("model__freeze_vitt", True, "model.freeze_vitt is unknown; did you mean 'freeze_vit'?"),
        ("model__num_query_tokens", 1, "model.num_query_tokens is unknown; did you mean 'num_query_token'?"),
        ("model__arch", "blip2_otp", "model.arch 'blip2_otp' is unknown; did you mean 'blip2_opt'?"),
        (
            "model__model_type",
            "pretrain_opt27b",
            "model.model_type 'pretrain_opt27b' is unknown; did you mean 'pretrain",
        ),
        (
            "datasets__coco_captions",
            {},
            "datasets.coco_captions 'coco_captions' is unknown; did you mean 'coco_caption'?",
        ),
        (
            "datasets__coco_caption__type",
            "defualt",
            "datasets.coco_caption.type 'defualt' is unknown; did you mean 'defau",
        ),
        (
            "datasets__coco_caption__vis_procesor",
            {},
            "datasets.coco_caption.vis_procesor is unknown; did you mean 'vis_pr",
        ),
        ("datasets__coco_caption__build_info__image", {}, "build_info.image is unknown; did you mean 'images'?"),
        (
            "datasets__coco_caption__build_info__images__storag",
            "x",
            "images.storag is unknown; did you mean 'storage'?",
        ),
        (
            "datasets__coco_caption__vis_processor__train__imagesize",
            224,
            "datasets.coco_caption.vis_processor.train.imagesize is unknown; did you mean 'image_size'?",
        ),
        (
            "datasets__coco_caption__text_processor__train__name",
            "blip_captoin",
            "text_processor.train.name 'blip_captoin' is unknown; did you mean 'blip_caption'?",
        ),
        ("run__batch_size_trian", 8, "run.batch_size_trian is unknown; did you mean 'batch_size_train'?"),
        ("run__num_beam", 8, "run.num_beam is unknown; did you mean 'num_beams'?"),
        ("run__task", "captionning", "run.task 'captionning' is unknown; did you mean 'captioning'?"),
        ("run__runner", "runner_evlgn", "run.runner 'runner_evlgn' is unknown; did you mean 'runner_evlgen'?"),
        ("run__lr_sched", "linear_warmup_cosin_lr", "run.lr_sched 'linear_warmup_cosin_lr' is unknown; did you mean"),
    ],
)
def test_typos_name_the_path_and_the_nearest_key(key, value, message):
    assert message in problems(**{key: value})


def test_all_problems_are_reported_at_once():
    message = problems(model__freeze_vitt=True, run__init_Lr=1)
    assert "model.freeze_vitt" in message and "run.init_Lr is unknown; did you mean 'init_lr'" in message


def test_missing_names_are_said():
    config = OmegaConf.create(GOOD)
    del config.model.model_type, config.run.task
    with pytest.raises(ConfigError, match=r"model.model_type is missing; known are [\s\S]*run.task is missing"):
        check_config(config)


def test_own_models_declare_their_keys():
    model = {
        "arch": "evlgen_opt",
        "model_type": "pretrain_opt2.7b",
        "tome_r": 19,
        "connector_config": {"hidden_size": 8},
    }
    config = OmegaConf.merge(OmegaConf.create(GOOD), {"model": {"tome_r": 19}})
    config.model = model
    check_config(config)
    config.model.tom_r = 19
    with pytest.raises(ConfigError, match="model.tom_r is unknown; did you mean 'tome_r'"):
        check_config(config)


def test_extra_keys_in_shipped_defaults_are_known_at_any_depth():
    config = OmegaConf.create(GOOD)
    config.model = {"arch": "alpro_qa", "model_type": "msrvtt", "timesformer": {"n_frms": 8}}
    check_config(config)
    config.model.timesformer.n_frmes = 8
    with pytest.raises(ConfigError, match="model.timesformer.n_frmes is unknown; did you mean 'n_frms'"):
        check_config(config)


def test_lavis_project_files_pass():
    checked = 0
    for path in sorted(PROJECTS.rglob("*.yaml")):
        config = OmegaConf.load(path)
        if "model" not in config:
            continue  # one shipped file is empty
        model = registry.get_model_class(config.model.arch)
        buildable = model is not None and config.model.model_type in model.PRETRAINED_MODEL_CONFIG_DICT
        if buildable and all(registry.get_builder_class(name) for name in config.datasets):
            check_config(config)
            checked += 1
    assert checked >= 60

"""Values of the `run` section: types, bounds, precision."""

import pytest
from omegaconf import OmegaConf

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.runners.settings import RunSettings


def test_yaml_numbers_become_the_right_types():
    run = OmegaConf.create("{max_iters: 5e3, init_lr: 1, resume_ckpt_path: null, num_beams: 5, train_splits: [a]}")
    settings = RunSettings.from_config(run)
    assert settings.max_iters == 5000 and isinstance(settings.max_iters, int)
    assert settings.init_lr == 1.0 and isinstance(settings.init_lr, float)
    assert settings.resume_ckpt_path == "" and settings.train_splits == ["a"]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"max_iters": "many"}, "run.max_iters: 'many' is not of type int"),
        ({"max_iters": 1.5}, "run.max_iters: 1.5 is not of type int"),
        ({"valid_splits": "val"}, "run.valid_splits: 'val' is not of type list"),
        ({"batch_size_train": 0}, "run.batch_size_train must be at least 1, not 0"),
        ({"precision": "fp8"}, "run.precision: 'fp8' is none of fp32, bf16, fp16"),
        ({"lr_sched": "cosine"}, "run.lr_sched: unknown 'cosine'"),
        ({"health_freq": 5}, "run.health_freq needs held-out pictures"),
    ],
)
def test_wrong_values_name_their_key(run, message):
    with pytest.raises(ConfigError) as error:
        RunSettings.from_config(run)
    assert message in str(error.value)


def test_precision_follows_amp_on_a_gpu_only():
    assert RunSettings(amp=True).precision_on("cuda") == "fp16"
    assert RunSettings(amp=True).precision_on("cpu") == "fp32"
    assert RunSettings(amp=True, precision="bf16").precision_on("cpu") == "bf16"
    assert RunSettings().precision_on("cuda") == "fp32"

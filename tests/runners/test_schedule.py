"""Learning rates at chosen steps."""

import pytest
import torch
from torch import nn

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.runners.schedule import Schedule

COMMON = {"max_iters": 110, "init_lr": 1e-3, "min_lr": 1e-4, "warmup_lr": 1e-5, "warmup_steps": 10}


def test_warmup_is_linear_and_ends_at_init_lr():
    schedule = Schedule("linear_warmup_cosine_lr", **COMMON)
    assert schedule(0) == pytest.approx(1e-5)
    assert schedule(5) == pytest.approx((1e-5 + 1e-3) / 2)
    assert schedule(10) == pytest.approx(1e-3)


def test_cosine_spans_the_rest_of_the_run():
    schedule = Schedule("linear_warmup_cosine_lr", **COMMON)
    assert schedule(60) == pytest.approx((1e-3 + 1e-4) / 2)
    assert schedule(35) == pytest.approx(1e-4 + 0.9e-3 * 0.5 * (1 + 2**-0.5))
    assert schedule(110) == pytest.approx(1e-4)
    assert schedule(500) == pytest.approx(1e-4)


def test_step_decays_every_period_down_to_min_lr():
    schedule = Schedule("linear_warmup_step_lr", **COMMON, decay_rate=0.5, decay_every=20)
    assert [schedule(step) for step in (19, 20, 40)] == pytest.approx([1e-3, 5e-4, 2.5e-4])
    assert schedule(100) == pytest.approx(1e-4)


def test_constant_and_negative_warmup_lr():
    assert Schedule("constant_lr", max_iters=9, init_lr=0.1)(8) == 0.1
    assert Schedule("linear_warmup_cosine_lr", **{**COMMON, "warmup_lr": -1})(0) == pytest.approx(1e-3)


def test_groups_keep_their_scale():
    layers = [nn.Linear(1, 1), nn.Linear(1, 1)]
    groups = [{"params": list(layers[0].parameters())}, {"params": list(layers[1].parameters()), "lr_scale": 0.3}]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    assert Schedule("constant_lr", max_iters=1, init_lr=0.1).apply(optimizer, 0) == 0.1
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.03])


def test_unknown_name_is_corrected():
    with pytest.raises(ConfigError, match="did you mean 'linear_warmup_cosine_lr'"):
        Schedule("linear_warmup_cosin_lr", **COMMON)

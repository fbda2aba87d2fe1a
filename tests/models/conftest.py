"""Tiny models of LAVIS's ALBEF and BLIP, and ours beside them."""

from functools import partial

import pytest
from elip_tiny import build, model_keys


@pytest.fixture
def keys(tmp_path):
    """Model keys of a tiny model of LAVIS's: ``keys("blip_vqa", elip_training=True)``."""
    return partial(model_keys, tmp_path)


@pytest.fixture
def pair(keys, capsys):
    """LAVIS's model and the ELIP model with the same weights: ``pair("blip_vqa", elip_keep=[1, 1, 1])``."""

    def make(name, **overrides):
        chosen = keys(name, **overrides)
        models = build(name, chosen), build(f"elip_{name}", chosen)
        capsys.readouterr()
        return models

    return make

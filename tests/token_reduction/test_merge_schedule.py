"""Merge schedules: forms, totals, what cannot be met."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.token_reduction import merge_schedule, token_counts


def test_paper_settings_end_at_29_tokens():
    assert token_counts(257, merge_schedule(19, 12)) == list(range(257, 28, -19))
    assert token_counts(257, merge_schedule(40, 6))[-1] == 257 - sum([40] * 5) - 28


def test_late_layers_merge_what_is_left():
    assert token_counts(257, merge_schedule(64, 6)) == [257, 193, 129, 65, 33, 17, 9]
    assert token_counts(256, [128], protect_cls=False) == [256, 128]


@given(st.integers(0, 100), st.floats(-1, 1), st.integers(1, 24))
def test_inflected_schedules_keep_the_total(r, inflect, num_layers):
    if num_layers == 2:
        return  # two values are one per layer there
    schedule = merge_schedule([r, inflect], num_layers)
    assert len(schedule) == num_layers and sum(schedule) == r * num_layers and min(schedule) >= 0
    assert schedule[-1] >= schedule[0] - 1 if inflect >= 0 else schedule[0] >= schedule[-1] - 1


def test_forms():
    assert merge_schedule([3, 2, 1], 3) == [3, 2, 1]
    assert merge_schedule([10, 1], 5) == [0, 5, 10, 15, 20]
    assert merge_schedule([10, -1], 5) == [20, 15, 10, 5, 0]
    assert merge_schedule([4, 1], 2) == [4, 1]


@pytest.mark.parametrize("bad", [-1, 2.5, [1, 2, 3, 4], [1, 2, -1], [3, 2.0]])
def test_unusable_schedules_name_the_key(bad):
    with pytest.raises(ConfigError, match="tome_r"):
        merge_schedule(bad, 3)


def test_too_large_r_says_what_is_possible():
    with pytest.raises(ConfigError, match="tome_r: 129 is too large.* 128 of 257"):
        token_counts(257, [19, 129])

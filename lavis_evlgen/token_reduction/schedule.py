"""How many tokens each layer merges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from lavis_evlgen.errors import ConfigError


def merge_schedule(r: int | Sequence[float], num_layers: int) -> list[int]:
    """Tokens to merge in each of `num_layers` layers.

    Args:
        r: an int (the same in every layer); one int per layer; or ``[r, inflect]`` with inflect in -1 … 1: linearly
            falling (-1), constant (0) or rising (+1) with the same total as `r` everywhere (ToMe, appendix). A list
            as long as the model has layers is always read as one int per layer.

    Raises:
        ConfigError: r is negative, not whole, or a list of another length.
    """
    if isinstance(r, (int, float)):
        return _whole([r] * num_layers, r)
    values = list(r)
    if len(values) == num_layers:
        return _whole(values, r)
    if len(values) == 2:
        return _inflected(values[0], values[1], num_layers)
    raise ConfigError(f"tome_r has {len(values)} values: give one number, {num_layers} (one a layer) or [r, inflect]")


def token_counts(num_tokens: int, schedule: Sequence[int], *, protect_cls: bool = True) -> list[int]:
    """Tokens before the first layer and after each: 257 with 12 x 19 gives [257, 238, …, 29].

    Raises:
        ConfigError: a layer asks for more than half of all tokens, which no layer could ever merge. Late layers with
            fewer tokens left merge what they can.
    """
    most = (num_tokens - int(protect_cls)) // 2
    if max(schedule, default=0) > most:
        raise ConfigError(
            f"tome_r: {max(schedule)} is too large: a layer merges at most half of its tokens, {most} of {num_tokens}"
        )
    counts = [num_tokens]
    for r in schedule:
        counts.append(counts[-1] - min(r, (counts[-1] - int(protect_cls)) // 2))
    return counts


def _whole(values: Sequence[float], given: object) -> list[int]:
    if any(value < 0 or value != int(value) for value in values):
        raise ConfigError(f"tome_r: {given} must be whole numbers of tokens, zero or more")
    return [int(value) for value in values]


def _inflected(r: float, inflect: float, num_layers: int) -> list[int]:
    if not -1 <= inflect <= 1:
        raise ConfigError(f"tome_r: [{r}, {inflect}]: inflect must lie between -1 (falling) and 1 (rising)")
    _whole([r], [r, inflect])
    slope = 2 * inflect / max(num_layers - 1, 1)
    exact = [r * (1 - inflect + slope * layer) if num_layers > 1 else r for layer in range(num_layers)]
    # rounding the running total keeps the sum exactly num_layers * r
    totals = [round(sum(exact[:layer])) for layer in range(num_layers + 1)]
    return [after - before for before, after in pairwise(totals)]


def fewest_tokens(num_tokens: int, num_layers: int, *, protect_cls: bool = True) -> int:
    """The fewest tokens that `num_layers` layers can leave: each halves what it gets, the CLS token apart."""
    return token_counts(num_tokens, [(num_tokens - int(protect_cls)) // 2] * num_layers, protect_cls=protect_cls)[-1]


def stretched_schedule(schedule: Sequence[int], num_tokens: int, left: int, *, protect_cls: bool = True) -> list[int]:
    """A schedule in the proportions of another that leaves `left` tokens; the same one where that leaves as many.

    What a layer cannot merge, for it merges at most half, the layers before or after it do.

    Raises:
        ConfigError: there are not so many tokens, or the layers cannot leave so few.
    """
    cls = int(protect_cls)
    least = fewest_tokens(num_tokens, len(schedule), protect_cls=protect_cls)
    if not least <= left <= num_tokens:
        raise ConfigError(f"tokens: {num_tokens} cannot be merged into {left}; choose {least} to {num_tokens}")
    counts = token_counts(num_tokens, schedule, protect_cls=protect_cls)
    merged = [num_tokens - count for count in counts[1:]]
    if not merged[-1]:  # a schedule that merges nothing has no proportions
        merged = list(range(1, len(schedule) + 1))
    stretched, present = [], num_tokens
    for layer, so_far in enumerate(merged, start=1):
        # more than this the layers to come could not bring down to `left`
        most = (left - cls) * 2 ** (len(schedule) - layer) + cls
        wanted = min(num_tokens - round((num_tokens - left) * so_far / merged[-1]), most)
        stretched.append(max(0, min(present - wanted, (present - cls) // 2)))
        present -= stretched[-1]
    return stretched

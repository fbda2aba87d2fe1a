"""The kinds of faults and the list of cases that a seed gives."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .workplace import Workplace

Inject = Callable[[Workplace], str]
"""Disturbs a run and makes it go on; says where the fault struck. Raises Failed or Missed."""


@dataclass(frozen=True)
class Kind:
    """``share``: how many of 200 cases; ``setups``: the undisturbed runs it is compared with."""

    name: str
    share: int
    setups: tuple[str, ...]
    inject: Inject


@dataclass(frozen=True)
class Case:
    kind: str
    number: int
    seed: int

    def rng(self, attempt: int) -> random.Random:
        return random.Random(f"{self.seed}/{self.kind}/{self.number}/{attempt}")


KINDS: dict[str, Kind] = {}


def kind(name: str, share: int, *setups: str) -> Callable[[Inject], Inject]:
    def register(inject: Inject) -> Inject:
        KINDS[name] = Kind(name, share, setups, inject)
        return inject

    return register


def plan(count: int, seed: int, names: Sequence[str] = ()) -> list[Case]:
    """``count`` cases of the named kinds (default: all), evenly mixed: one of each, the others by their shares."""
    kinds = [KINDS[name] for name in names or KINDS]
    whole = sum(each.share for each in kinds)
    once = count >= len(kinds)
    exact = {each.name: once + (count - once * len(kinds)) * each.share / whole for each in kinds}
    numbers = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: numbers[name] - exact[name])
    for name in by_remainder[: count - sum(numbers.values())]:
        numbers[name] += 1
    placed = [((i + 0.5) / number, Case(name, i, seed)) for name, number in numbers.items() for i in range(number)]
    return [case for _, case in sorted(placed, key=lambda each: each[0])]

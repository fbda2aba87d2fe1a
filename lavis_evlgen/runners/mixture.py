"""Mixtures of data sets: what is drawn from, in which shares, and whose turn it is."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import gcd, inf, lcm

from torch.utils.data import ConcatDataset, Dataset, IterableDataset

from lavis_evlgen.errors import ConfigError

_FINEST = 10**6  # weights are rounded to fractions of the largest with at most this denominator


class Turns:
    """Whose turn step k is, when the shares of the turns are to be as ``weights``.

    After any number of steps everybody's turns differ from their share by less than one, so that weights of 15:4:1 give
    exactly 15, 4 and 1 turns in every 20 steps; independent draws would be off by the square root of the steps. Nothing
    is random: all processes know whose turn it is without asking each other.

    The algorithm is that of R. Tijdeman, The chairman assignment problem, Discrete Mathematics 32 (1980): of those with
    at least 1 / (2n - 2) turns due, the one whose next turn may be put off the least.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        """Raises ValueError when a weight is negative or none is positive."""
        if any(weight < 0 for weight in weights) or not any(weights):
            raise ValueError(f"weights must be positive, not {list(weights)}")
        largest = Fraction(str(float(max(weights))))
        fractions = [(Fraction(str(float(weight))) / largest).limit_denominator(_FINEST) for weight in weights]
        scale = lcm(*(each.denominator for each in fractions))
        whole = [int(each * scale) for each in fractions]
        self.weights = [weight // gcd(*whole) for weight in whole]
        self.round = sum(self.weights)
        """Steps after which the turns come again in the same order."""
        self._had = [0] * len(self.weights)
        self._order: list[int] = []

    def __call__(self, step: int) -> int:
        while len(self._order) <= step % self.round:
            self._order.append(self._next())
        return self._order[step % self.round]

    def _next(self) -> int:
        players = [number for number, weight in enumerate(self.weights) if weight]
        if len(players) == 1:
            return players[0]
        step, parts = len(self._order) + 1, 2 * len(players) - 2
        due = {each: parts * (step * self.weights[each] - self._had[each] * self.round) for each in players}
        ready = [each for each in players if due[each] >= self.round]
        chosen = min(ready, key=lambda each: Fraction((parts - 1) * self.round - due[each], self.weights[each]))
        self._had[chosen] += 1
        return chosen


def grouped(
    datasets: Mapping[str, list[Dataset]], ratios: Mapping[str, float]
) -> tuple[dict[str, Dataset], list[float]]:
    """Data sets to draw from and their weights.

    With ratios every name is one; without, all map-style data is one and every stream one, drawn evenly.

    Raises:
        ConfigError: no data, or ratios that are negative or name other data sets.
    """
    if not any(datasets.values()):
        raise ConfigError("run.train_splits: no data set of the configuration has such a split")
    flat = [(name, data) for name, parts in datasets.items() for data in parts]
    if ratios:
        wrong = sorted(set(ratios) ^ {name for name, _ in flat})
        if wrong:
            raise ConfigError(
                f"run.train_dataset_ratios and the data sets with a training split differ in: {', '.join(wrong)}"
            )
        if not all(isinstance(each, int | float) and 0 <= each < inf for each in ratios.values()) or not any(
            ratios.values()
        ):
            raise ConfigError(f"run.train_dataset_ratios must be positive numbers, not {dict(ratios)}")
        groups = {name: _joined(name, parts) for name, parts in datasets.items() if parts}
        return groups, [float(ratios[name]) for name in groups]
    maps = [(name, data) for name, data in flat if not isinstance(data, IterableDataset)]
    streams = {name: data for name, data in flat if isinstance(data, IterableDataset)}
    joined = {"+".join(dict(maps)): _joined("", [data for _, data in maps])} if maps else {}
    return joined | streams, [1.0] * (len(joined) + len(streams))


def _joined(name: str, parts: list[Dataset]) -> Dataset:
    if len(parts) == 1:
        return parts[0]
    if any(isinstance(part, IterableDataset) for part in parts):
        raise ConfigError(f"datasets.{name}: run.train_splits may name only one split of a streamed data set")
    return ConcatDataset(parts)

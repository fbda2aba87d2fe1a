"""What the embedded pictures show and how it is said: compositions, their splits, their captions."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from lavis_evlgen.embedded.things import Thing
from lavis_evlgen.errors import ConfigError

SIZES = ("small", "large")
BACKGROUNDS = {  # sRGB
    "red": (226, 60, 52),
    "yellow": (252, 214, 48),
    "green": (62, 160, 74),
    "blue": (48, 104, 214),
    "white": (247, 247, 247),
    "black": (24, 24, 26),
}
PLACES = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
RELATIONS = {  # each with its inverse
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}
FEWEST_FOR_PAIRS = 12
# Every composition, and every pair of things, has a residue modulo 6 that decides its split.
SPLITS = {"train": (2, 3, 4, 5), "val": (1,), "test": (0,), "test_unseen": (0, 1, 2, 3, 4, 5)}


@dataclass(frozen=True)
class Scene:
    """One thing at a place, or two in a relation (the first to the second), on a coloured background."""

    things: tuple[Thing, ...]
    sizes: tuple[str, ...]
    background: str
    where: str  # a key of PLACES, or of RELATIONS when there are two things

    def captions(self) -> list[str]:
        """All wordings, the canonical one first."""
        phrases = [thing.phrase(size) for thing, size in zip(self.things, self.sizes, strict=True)]
        ground = f"on a {self.background} background"
        if len(phrases) == 2:
            said = f"{phrases[0]} {self.where} {phrases[1]}"
            turned = f"{phrases[1]} {RELATIONS[self.where]} {phrases[0]} {ground}"
            return [f"{said} {ground}", turned, f"a {self.background} picture with {said}", f"{ground}, {said}"]
        said = f"{phrases[0]} {PLACES[self.where]}"
        return [
            f"{said} {ground}",
            f"a {self.background} picture with {said}",
            f"{ground}, {said}",
            f"{said} of a {self.background} picture",
        ]

    def attributes(self) -> dict:
        """The record's own keys beside picture and captions, for measuring what a caption gets right."""
        shared = {"things": [thing.name for thing in self.things], "background": self.background}
        if len(self.things) == 2:
            return shared | {"sizes": list(self.sizes), "relation": self.where}
        return shared | {"size": self.sizes[0], "place": self.where}


def split_scenes(split: str, things: list[Thing], count: int, two_things: float, seed: int) -> list[Scene]:
    """``count`` scenes of a split (a key of SPLITS), a share ``two_things`` of them with two things.

    Each thing is the (first) thing equally often, up to one. Each six pictures of a thing alone show every size,
    background and place equally often. The splits share no composition (thing, size, background, place) of one thing
    and no pair of things. Raises ConfigError when there are too few things to make pairs.
    """
    rng = random.Random(f"{seed}/{split}")
    pairs = round(count * two_things)
    alone = _alone(split, things, rng)
    together = _together(split, things, rng) if pairs else iter(())
    return [next(alone) for _ in range(count - pairs)] + [next(together) for _ in range(pairs)]


def _alone(split: str, things: list[Thing], rng: random.Random) -> Iterator[Scene]:
    orders = [_compositions(index, split, rng) for index in range(len(things))]
    for turn in range(10**9):
        for thing, order in zip(things, orders, strict=True):
            size, background, place = order[turn % len(order)]
            yield Scene((thing,), (size,), background, place)


def _compositions(index: int, split: str, rng: random.Random) -> list[tuple[str, str, str]]:
    """The split's (size, background, place) of the thing at ``index``, in rounds of six.

    Adding up background + 2 place + 3 size makes each residue a Latin design: its six compositions hold every
    background once, every place twice and every size three times. The index turns it, thing by thing.
    """
    rounds = []
    residues = list(SPLITS[split])
    rng.shuffle(residues)
    for residue in residues:
        cells = product(enumerate(SIZES), enumerate(BACKGROUNDS), enumerate(PLACES))
        one = [(s, b, p) for (i, s), (j, b), (k, p) in cells if (j + 2 * k + 3 * i + index) % 6 == residue]
        rng.shuffle(one)
        rounds += one
    return rounds


def _together(split: str, things: list[Thing], rng: random.Random) -> Iterator[Scene]:
    needed = 2 if split == "test_unseen" else FEWEST_FOR_PAIRS
    if len(things) < needed:
        raise ConfigError(f"pictures of two things ({split}) need at least {needed} things, got {len(things)}")
    partners = []
    for first in range(len(things)):
        fitting = [b for b in range(len(things)) if b != first and (first + b) % 6 in SPLITS[split]]
        partners.append(rng.sample(fitting, len(fitting)))
    deck: list[tuple[str, str, str, str]] = []
    for turn in range(10**9):
        for first, order in enumerate(partners):
            if not deck:
                deck = list(product(SIZES, SIZES, BACKGROUNDS, RELATIONS))
                rng.shuffle(deck)
            *sizes, background, relation = deck.pop()
            pair = (things[first], things[order[turn % len(order)]])
            yield Scene(pair, tuple(sizes), background, relation)

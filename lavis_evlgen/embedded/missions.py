"""What the embedded clips show and how it is said: missions, their mirror images in time, their splits."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from lavis_evlgen.errors import ConfigError

COLOURS = ("red", "green", "blue", "purple", "yellow")  # MiniGrid's, less grey, which is the walls' colour
MOVABLE = ("ball", "box", "key")
KINDS = (*MOVABLE, "door")
# BabyAI's sentence of a mission, and ours of the same episode played backwards
WORDINGS = {
    "go to": ("go to {0}", "leave {0}"),
    "pick up": ("pick up {0}", "put down {0}"),
    "open": ("open {0}", "close {0}"),
    "put next to": ("put {0} next to {1}", "take {0} away from {1}"),
}
KNOWN, UNSEEN = "known", "unseen"


class Item(NamedTuple):
    """An object of the grid; a scene never has two alike, so that "the red ball" says which one."""

    colour: str
    kind: str

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"

    @property
    def held_out(self) -> bool:
        """Whether training neither shows nor names it: one colour of every kind, each colour at most once."""
        return COLOURS.index(self.colour) == KINDS.index(self.kind)


ITEMS = tuple(Item(colour, kind) for colour, kind in product(COLOURS, KINDS))


@dataclass(frozen=True)
class Mission:
    """A verb (a key of WORDINGS), what it is done to (and next to what), and what else lies about."""

    verb: str
    items: tuple[Item, ...]
    others: tuple[Item, ...] = ()

    def caption(self, backwards: bool = False) -> str:
        """The sentence of the episode, or of its reverse."""
        return WORDINGS[self.verb][backwards].format(*(f"the {item.name}" for item in self.items))

    def verb_phrases(self, backwards: bool = False) -> list[str]:
        """The words of the action alone: ["open"], ["put", "next to"], …"""
        return [words.strip() for words in re.split(r"\{\d\}", WORDINGS[self.verb][backwards]) if words.strip()]


def missions(kind: str, verbs: tuple[str, ...], count: int, others: int, seed: int | str) -> list[Mission]:
    """``count`` missions, every verb equally often up to one, and every item of a verb too.

    Args:
        kind: ``known``: only items that training shows; ``unseen``: the (first) item is one that it never shows.
        verbs: keys of WORDINGS.
        others: how many more items lie about.
        seed: other seeds give other missions.

    Raises:
        ConfigError: an unknown verb, or more things than the room has place for.
    """
    unknown = [verb for verb in verbs if verb not in WORDINGS]
    if unknown or not verbs:
        raise ConfigError(f"verbs: {unknown or 'none given'}; choose from {', '.join(WORDINGS)}")
    if not 0 <= others <= 6:
        raise ConfigError(f"others={others}: the room has place for 0 to 6 more things")
    rng = random.Random(f"{seed}/{kind}")
    decks = {verb: _deck(kind, verb, rng) for verb in verbs}
    found = []
    for number in range(count):
        verb = verbs[number % len(verbs)]
        items = next(decks[verb])
        about = [item for item in ITEMS if item.kind in MOVABLE and not item.held_out and item not in items]
        found.append(Mission(verb, items, tuple(rng.sample(about, others))))
    return found


def _deck(kind: str, verb: str, rng: random.Random) -> Iterator[tuple[Item, ...]]:
    """The items of a verb's missions, shuffled anew each time all were used."""
    usable = [item for item in ITEMS if item.held_out == (kind == UNSEEN)]
    movable = [item for item in usable if item.kind in MOVABLE]
    beside = [item for item in ITEMS if item.kind in MOVABLE and not item.held_out]
    cards: list[tuple[Item, ...]]
    if verb == "open":
        cards = [(item,) for item in usable if item.kind == "door"]
    elif verb == "put next to":
        cards = [(a, b) for a, b in product(movable, beside) if a != b]
    else:
        cards = [(item,) for item in movable]
    while True:
        yield from rng.sample(cards, len(cards))

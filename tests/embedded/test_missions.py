"""What the embedded clips are about: sentences, mirror images, what is held out."""

from collections import Counter
from itertools import product

import pytest

from lavis_evlgen.embedded.missions import (
    COLOURS,
    ITEMS,
    KINDS,
    KNOWN,
    MOVABLE,
    UNSEEN,
    WORDINGS,
    Item,
    Mission,
    missions,
)
from lavis_evlgen.errors import ConfigError

ALL = tuple(WORDINGS)


def test_sentences_and_those_of_the_reverse():
    ball, key, door = Item("red", "ball"), Item("blue", "key"), Item("green", "door")
    said = {
        Mission("go to", (ball,)): ("go to the red ball", "leave the red ball"),
        Mission("pick up", (key,)): ("pick up the blue key", "put down the blue key"),
        Mission("open", (door,)): ("open the green door", "close the green door"),
        Mission("put next to", (ball, key)): (
            "put the red ball next to the blue key",
            "take the red ball away from the blue key",
        ),
    }
    assert {mission: (mission.caption(), mission.caption(backwards=True)) for mission in said} == said
    assert {mission.verb for mission in said} == set(WORDINGS)


def test_the_words_of_the_action_tell_all_eight_apart():
    phrases = [
        Mission(verb, (Item("red", "ball"), Item("blue", "key"))).verb_phrases(backwards)
        for verb, backwards in product(WORDINGS, (False, True))
    ]
    assert phrases == [
        ["go to"], ["leave"], ["pick up"], ["put down"], ["open"], ["close"], ["put", "next to"], ["take", "away from"],
    ]  # fmt: skip


def test_one_colour_of_every_kind_is_held_out():
    held_out = [item for item in ITEMS if item.held_out]
    assert Counter(item.kind for item in held_out) == dict.fromkeys(KINDS, 1)
    assert len({item.colour for item in held_out}) == len(KINDS)


def test_training_knows_every_word_but_never_shows_nor_names_what_is_held_out():
    known = missions(KNOWN, ALL, 600, 3, seed=1)
    shown = {item for mission in known for item in (*mission.items, *mission.others)}
    assert shown == {item for item in ITEMS if not item.held_out}
    assert {item.colour for item in shown} == set(COLOURS) and {item.kind for item in shown} == set(KINDS)
    said = {mission.caption(backwards) for mission in known for backwards in (False, True)}
    new = {mission.caption(backwards) for mission in missions(UNSEEN, ALL, 200, 3, 2) for backwards in (False, True)}
    assert not said & new
    assert {word for caption in new for word in caption.split()} <= {word for text in said for word in text.split()}


def test_missions_of_unseen_things_are_about_one_each():
    unseen = missions(UNSEEN, ALL, 80, 2, seed=0)
    assert all([item.held_out for item in mission.items] == [True, False][: len(mission.items)] for mission in unseen)
    assert {mission.items[0] for mission in unseen} == {item for item in ITEMS if item.held_out}


def test_no_scene_has_two_things_alike():
    for kind in (KNOWN, UNSEEN):
        for mission in missions(kind, ALL, 400, 4, seed=5):
            scene = (*mission.items, *mission.others)
            assert len(set(scene)) == len(scene) == len(mission.items) + 4
            assert all(item.kind in MOVABLE for item in mission.others)


def test_verbs_and_things_are_equally_frequent():
    known = missions(KNOWN, ALL, 480, 0, seed=0)
    assert Counter(mission.verb for mission in known) == dict.fromkeys(ALL, 120)
    picked = Counter(mission.items[0] for mission in known if mission.verb == "pick up")
    assert len(picked) == 12 and set(picked.values()) == {10}
    opened = Counter(mission.items[0] for mission in known if mission.verb == "open")
    assert len(opened) == 4 and set(opened.values()) == {30}


def test_the_seed_decides():
    assert missions(KNOWN, ALL, 40, 2, seed=3) == missions(KNOWN, ALL, 40, 2, seed=3)
    assert missions(KNOWN, ALL, 40, 2, seed=3) != missions(KNOWN, ALL, 40, 2, seed=4)


def test_options_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"verbs: \['close'\]; choose from go to, pick up"):
        missions(KNOWN, ("open", "close"), 4, 1, 0)
    with pytest.raises(ConfigError, match="verbs: none given"):
        missions(KNOWN, (), 4, 1, 0)
    with pytest.raises(ConfigError, match="others=7"):
        missions(KNOWN, ALL, 4, 7, 0)

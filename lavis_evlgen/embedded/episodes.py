"""Captioned clips for the demo: MiniGrid episodes and their reverses, a data set that needs no download."""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lavis_evlgen.embedded.clips import write_clip
from lavis_evlgen.embedded.folders import appearing_whole, discard
from lavis_evlgen.embedded.missions import KNOWN, UNSEEN, WORDINGS, Mission, missions
from lavis_evlgen.errors import ConfigError, DataError

MOMENTS = 4  # of an episode that a clip shows
HOLD = 3  # frames that a moment stays
CELL = 14  # pixels of a cell's side: one patch of the ViTs that the demo uses
_FORMAT = 1  # raised when the same options would give other clips or captions
_ATTEMPTS = 50
_ATTRIBUTION = """The clips show episodes of MiniGrid {version}, https://minigrid.farama.org (MIT by its metadata, \
Apache-2.0 by its license file), whose missions, sentences and solving bot are BabyAI's.

Chevalier-Boisvert et al., "Minigrid & Miniworld: Modular & Customizable Reinforcement Learning Environments for \
Goal-Oriented Tasks", 2023; Chevalier-Boisvert et al., "BabyAI: A Platform to Study the Sample Efficiency of Grounded \
Language Learning", 2019.
"""


def build(
    out: str | Path,
    *,
    train: int = 400,
    val: int = 20,
    test: int = 60,
    unseen: int = 60,
    others: int = 1,
    verbs: Sequence[str] = tuple(WORDINGS),
    seed: int = 0,
) -> Path:
    """Write ``{split}.jsonl``, ``{split}/000000.mp4``, ``{split}/000000_reversed.mp4`` …, spec.json; return ``out``.

    ``train``, ``val``, ``test`` and ``unseen`` count episodes (0: no such split); each gives two clips, itself and its
    reverse in time, with captions of their own ("open the red door", "close the red door"). val and test show new
    episodes of missions that training knows; test_unseen is about things (a colour of a kind) that training neither
    shows nor names. ``others`` more things lie in the room.

    A clip shows four moments of its episode, each for three frames: any uniform sampling of four frames sees every
    moment once, so that clip and reverse give the same set of frames in opposite order, and nothing else tells
    them apart. A record has video (relative to ``out``), image_id, caption, mirror_caption (that of the reverse),
    mission (a key of WORDINGS), backwards, verb (the words of the action) and things.

    The folder appears whole. Asked again with the same options it does nothing, with others it is rebuilt.
    Raises ConfigError for options that do not fit, DataError when ``out`` holds something else or minigrid is missing.
    """
    out = Path(out)
    asked = {"train": train, "val": val, "test": test, "test_unseen": unseen}
    if min(asked.values()) < 0 or not any(asked.values()):
        raise ConfigError(f"episodes: {train=}, {val=}, {test=}, {unseen=}: counts must be 0 or more, not all 0")
    counts = {split: count for split, count in asked.items() if count}
    if importlib.util.find_spec("minigrid") is None:
        raise DataError("clips of MiniGrid need a package that is not installed; run: pip install minigrid")
    spec = {
        "format": _FORMAT,
        "minigrid": version("minigrid"),
        "episodes": counts,
        "others": others,
        "verbs": list(verbs),
        "seed": seed,
    }
    if _built(out) == spec:
        return out
    told = {
        split: missions(UNSEEN if split == "test_unseen" else KNOWN, tuple(verbs), count, others, f"{seed}/{split}")
        for split, count in counts.items()
    }
    with appearing_whole(out) as temporary:
        with tqdm(total=sum(counts.values()), unit="episodes", desc="filming", smoothing=0) as bar:
            for split, its_missions in told.items():
                _write_split(temporary, split, its_missions, seed, bar)
        (temporary / "ATTRIBUTION.txt").write_text(_ATTRIBUTION.format(version=spec["minigrid"]), "utf-8")
        (temporary / "spec.json").write_text(json.dumps(spec, indent=1) + "\n", "utf-8")
        if _built(out) not in (None, spec):
            discard(out)
    return out


def film(mission: Mission, seed: str) -> list[np.ndarray]:
    """The four moments of one episode of a mission: uint8 [112, 112, 3] each.

    The room, and with it the episode, follows from ``seed``. Raises DataError when the bot never gets it done.
    """
    from lavis_evlgen.embedded.gridworld import solve

    for attempt in range(_ATTEMPTS):
        number = int.from_bytes(hashlib.sha256(f"{seed}/{attempt}".encode()).digest()[:4], "big")
        solved = solve(mission, number, CELL)
        if solved is not None:
            sentence, frames, acts = solved
            assert sentence == mission.caption(), f"BabyAI says {sentence!r}"
            return [frames[moment] for moment in moments(len(frames), acts)]
    raise DataError(f"BabyAI's bot failed {_ATTEMPTS} times at {mission.caption()!r}")


def moments(count: int, acts: Sequence[int]) -> list[int]:
    """Which four of an episode's ``count`` frames a clip shows; ``acts`` are those after something was done.

    Always the first and the last; of an episode that ends in a deed also the frame before that deed, so that it
    happens between two neighbouring moments; of two deeds the first, else what lies evenly between.
    """
    last = count - 1
    if not acts:
        return [0, last // 3, 2 * last // 3, last]
    return [0, acts[0] if len(acts) > 1 else (last - 1) // 2, last - 1, last]


def _write_split(root: Path, split: str, told: Sequence[Mission], seed: int, bar: Any) -> None:
    (root / split).mkdir()
    with (root / f"{split}.jsonl").open("w", encoding="utf-8") as lines:
        for index, mission in enumerate(told):
            seen = film(mission, f"{seed}/{split}/{index}")
            for backwards in (False, True):
                name = f"{index:06d}{'_reversed' if backwards else ''}"
                ordered = seen[::-1] if backwards else seen
                write_clip(root / split / f"{name}.mp4", [frame for frame in ordered for _ in range(HOLD)])
                record = {
                    "video": f"{split}/{name}.mp4",
                    "image_id": f"{split}_{name}",
                    "caption": mission.caption(backwards),
                    "mirror_caption": mission.caption(not backwards),
                    "mission": mission.verb,
                    "backwards": backwards,
                    "verb": mission.verb_phrases(backwards),
                    "things": [item.name for item in mission.items],
                }
                lines.write(json.dumps(record) + "\n")
            bar.update()


def _built(out: Path) -> dict | None:
    """The spec of the clips in ``out``, None if there are none; DataError if it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        spec = json.loads((out / "spec.json").read_text("utf-8"))
        if isinstance(spec, dict) and "minigrid" in spec:
            return spec
    except (OSError, ValueError):
        pass
    raise DataError(f"{out} exists and was not made by lavis_evlgen.embedded; choose another folder, or remove it")

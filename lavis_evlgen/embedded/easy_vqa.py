"""Questions about simple shapes, out of the package easy-vqa (MIT), in the form of ``visual_question_answer``.

``python -m lavis_evlgen.embedded.easy_vqa`` writes them. The package holds 5,000 pictures of one shape in one colour,
48,248 questions made of 24 sentences, and 13 answers, of which yes and no make up 74 %.
"""

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path
from shutil import copyfile
from typing import Any

from lavis_evlgen.embedded.folders import appearing_whole, discard, packaged_file
from lavis_evlgen.errors import ConfigError, DataError, EvlgenError

_FORMAT = 1  # raised when the same options would give other files
_HERE = "easy-vqa"
_LICENSE = (
    "Pictures and questions come from easy-VQA (https://github.com/vzhou842/easy-VQA), MIT License, Victor Zhou.\n"
)

Row = dict[str, Any]


def build(out: str | Path, *, val: int = 300, test: int = 2000, seed: int = 0) -> Path:
    """Write ``{split}.jsonl`` and the pictures to ``out``; return it.

    ``train`` is easy-vqa's own training part without the pictures of ``val``, ``test_all`` its test part. ``val`` (of
    training pictures that train never shows) and ``test`` are as many questions drawn at random, ``test_shuffled`` the
    same questions as ``test``, each with the picture of another one: what a model gets right of these it owes to the
    questions alone. The folder appears whole; asked again with the same options this does nothing.

    Raises:
        ConfigError: fewer than 2 questions are asked for, or more than there are.
        DataError: easy-vqa is not installed, or ``out`` holds something else.
    """
    out = Path(out)
    spec = {"made_of": _HERE, "format": _FORMAT, "val": val, "test": test, "seed": seed}
    if _built(out) == spec:
        return out
    train, test_all = _rows("train"), _rows("test")
    if min(val, test) < 2 or val > len(train) // 2 or test > len(test_all):
        raise ConfigError(f"{val=}, {test=}: between 2 and {len(train) // 2}, and between 2 and {len(test_all)}")
    draw = random.Random(seed)
    shown = {row["image"] for row in draw.sample(train, val)}
    held_out = [row for row in train if row["image"] in shown]
    tested = draw.sample(test_all, test)
    splits = {
        "train": [row for row in train if row["image"] not in shown],
        "val": draw.sample(held_out, val),
        "test": tested,
        "test_shuffled": _shuffled(tested, draw),
        "test_all": test_all,
    }
    with appearing_whole(out) as temporary:
        for part in ("train", "test"):
            (temporary / part).mkdir()
            pictures = packaged_file(_HERE, "easy_vqa", f"data/{part}/images", DataError)
            for picture in sorted(pictures.glob("*.png")):
                copyfile(picture, temporary / part / picture.name)
        for split, rows in splits.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (temporary / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        (temporary / "ATTRIBUTION.txt").write_text(_LICENSE, encoding="utf-8")
        (temporary / "spec.json").write_text(json.dumps(spec) + "\n", encoding="utf-8")
        if _built(out) not in (None, spec):
            discard(out)
    return out


def blind_accuracies(out: str | Path) -> dict[str, float]:
    """What one gets right in ``test`` without looking, in percent: by the most common answer of ``train``, given to any
    question (``majority``) or by the question's words (``majority_by_question``)."""
    train, test = (
        [json.loads(line) for line in (Path(out) / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        for split in ("train", "test")
    )
    overall = Counter(row["answer"] for row in train).most_common(1)[0][0]
    by_question: dict[str, Counter[str]] = defaultdict(Counter)
    for row in train:
        by_question[row["question"]][row["answer"]] += 1
    right = {"majority": 0, "majority_by_question": 0}
    for row in test:
        seen = by_question[row["question"]]
        right["majority"] += row["answer"] == overall
        right["majority_by_question"] += bool(seen) and row["answer"] == seen.most_common(1)[0][0]
    return {name: 100 * count / len(test) for name, count in right.items()}


def _rows(part: str) -> list[Row]:
    """The questions of a part of the package."""
    file = packaged_file(_HERE, "easy_vqa", f"data/{part}/questions.json", DataError)
    return [
        {
            "image": f"{part}/{picture}.png",
            "question": question,
            "answer": answer,
            "question_id": f"{part}_{number}",
            "answer_type": "yes/no" if answer in ("yes", "no") else "color" if "color" in question else "shape",
        }
        for number, (question, answer, picture) in enumerate(json.loads(file.read_text(encoding="utf-8")))
    ]


def _shuffled(rows: list[Row], draw: random.Random) -> list[Row]:
    """The rows, each with the picture of another row that shows another picture."""
    own = [row["image"] for row in rows]
    others = draw.sample(own, len(own))
    while same := [place for place, picture in enumerate(own) if others[place] == picture]:
        for place in same:
            other = draw.randrange(len(own))
            others[place], others[other] = others[other], others[place]
    return [{**row, "image": image} for row, image in zip(rows, others, strict=True)]


def _built(out: Path) -> dict | None:
    """The spec of the questions in ``out``, None if there are none; DataError if it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        spec = json.loads((out / "spec.json").read_text(encoding="utf-8"))
        if isinstance(spec, dict) and spec.get("made_of") == _HERE:
            return spec
    except (OSError, ValueError):
        pass
    raise DataError(f"{out} exists and does not hold easy-vqa; choose another folder, or remove it")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 when all went well, 1 after an error that was explained on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m lavis_evlgen.embedded.easy_vqa",
        description="Writes the pictures and questions of the package easy-vqa as files for visual_question_answer.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/demo_vqa/data"), help="folder to make")
    parser.add_argument("--val", type=int, default=300, help="questions held out of the training part")
    parser.add_argument("--test", type=int, default=2000, help="questions drawn from the test part")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    options = vars(parser.parse_args(arguments))
    try:
        out = build(**options)
        print(f"questions: {out}")
        for name, percent in blind_accuracies(out).items():
            print(f"test, without looking, {name.replace('_', ' ')}: {percent:.1f} %")
    except EvlgenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

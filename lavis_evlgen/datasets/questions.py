"""Files of questions and answers (one's own, VQA's, OK-VQA's, GQA's, LAVIS's) read into one kind of record."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_evlgen.datasets.local_files import PROBED
from lavis_evlgen.datasets.records import Record, file_rows, id_of, reading
from lavis_evlgen.errors import DataError, nearest
from lavis_evlgen.json_text import parse_json, said

logger = logging.getLogger(__name__)

ANSWER_KEYS = ("answers", "answer")

# how COCO's pictures are named and laid out: 2014 and 2015, since 2017; in folders by split, or all in one
COCO_NAMES = (
    "{split}/COCO_{split}_{number:012d}.jpg",
    "COCO_{split}_{number:012d}.jpg",
    "{split}/{number:012d}.jpg",
    "{number:012d}.jpg",
)


@dataclass
class Question(Record):
    """A question about a picture, with the answers of all annotators; it has no captions.

    Attributes:
        answers: one per annotator, in their order; equal ones repeat. Empty in test splits.
        question_type, answer_type: the data set's own classes of questions, e.g. "how many" and "number"; or "".
    """

    question: str = ""
    question_id: str = ""
    answers: list[str] = field(default_factory=list)
    question_type: str = ""
    answer_type: str = ""

    @property
    def most_common(self) -> str:
        """The answer that most annotators gave, the first of these in a tie."""
        return Counter(self.answers).most_common(1)[0][0]


def read_questions(paths: Sequence[str | Path], folder: str | Path = ".") -> tuple[list[Question], list[str]]:
    """The questions of a split's files, and the answer list among the files (empty without one).

    The order of the files does not matter. Each is one of

    - rows (json, jsonl, csv) with ``image``, ``question``, ``answer`` or ``answers`` (a string, a list of strings, or
      VQA's list of dicts), and optionally ``question_id``, ``image_id``, ``question_type``, ``answer_type``. LAVIS's
      own files (vqa_train.json, okvqa_train.json, GQA's as a list) are of this form;
    - VQA v2's or OK-VQA's questions, and their annotations;
    - GQA's questions, a dict by question id;
    - a list of answers to choose from, as LAVIS's answer_list.json.

    Args:
        folder: where the pictures lie; tells which of COCO's layouts they have.

    Raises:
        DataError: a file is missing or damaged, a key is missing, two questions have one id, or annotations belong to
            none of the questions.
    """
    questions: dict[str, Question] = {}
    annotations: dict[str, tuple[str, dict[str, Any]]] = {}
    listed: list[str] = []
    for path in paths:
        for where, row in file_rows(path, partial(_rows_of_dict, Path(os.path.expanduser(folder)))):
            if isinstance(row, str):
                listed.append(row)
            elif isinstance(row, dict) and "question" not in row and "question_id" in row and _answer_key(row):
                annotations[str(row["question_id"])] = where, row
            else:
                _enter(questions, _question(where, row, str(len(questions))), where)
    if not questions:
        raise DataError(
            f"{_names(paths)}: no question; a split needs rows with 'question', or an official file of them"
        )
    _annotate(questions, annotations, paths)
    return list(questions.values()), listed


def read_answer_list(path: str | Path) -> list[str]:
    """Answers to choose from: a json list (or dict, whose keys they are), or a text file with one a line.

    Raises:
        DataError: the file is missing, damaged, or holds no answers.
    """
    path = Path(os.path.expanduser(path))
    if not os.path.isfile(path):
        raise DataError(f"answer list {path} does not exist (looked for {path.absolute()})")
    with reading(path):
        text = path.read_text(encoding="utf-8-sig")
    try:
        found = (
            list(parse_json(text)) if path.suffix.lower() == ".json" else [line.strip() for line in text.splitlines()]
        )
    except (TypeError, ValueError) as error:
        reason = said(error) if isinstance(error, ValueError) else error
        raise DataError(f"answer list {path}: not a list in JSON ({reason})") from error
    answers = [answer for answer in found if answer]
    if not answers or not all(isinstance(answer, str) for answer in answers):
        raise DataError(f"answer list {path} must hold strings, one for each answer")
    return list(dict.fromkeys(answers))


def _rows_of_dict(folder: Path, path: Path, content: dict[str, Any]) -> list[Any]:
    """An official file that is a dict, as rows."""
    if isinstance(content.get("questions"), list):
        return _vqa_rows(folder, path, content)
    if isinstance(content.get("annotations"), list) and "images" not in content:
        return content["annotations"]
    if content and all(isinstance(row, dict) and "imageId" in row for row in content.values()):
        return [_gqa_row(key, row) for key, row in content.items()]
    raise DataError(
        f"{path} is a dict with the keys {sorted(content)[:5]}: VQA's and OK-VQA's files have 'questions' or "
        "'annotations', GQA's have question ids with 'imageId' below them, and the plain form is a list of rows"
    )


def _vqa_rows(folder: Path, path: Path, content: dict[str, Any]) -> list[Any]:
    rows, split = content["questions"], str(content.get("data_subtype", "")).replace("-dev", "")
    try:
        numbers = [int(row["image_id"]) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: every question needs COCO's number of its picture as 'image_id' ({error!r})"
        ) from error
    names = [name for name in COCO_NAMES if split or "{split}" not in name]
    first = numbers[:PROBED]
    found = (name for name in names if any(os.path.isfile(folder / name.format(split=split, number=n)) for n in first))
    name = next(found, names[0])
    return [
        {**row, "image": name.format(split=split, number=number)} for row, number in zip(rows, numbers, strict=True)
    ]


def _gqa_row(key: str, row: dict[str, Any]) -> dict[str, Any]:
    kinds = row.get("types")
    structural = kinds.get("structural", "") if isinstance(kinds, dict) else ""
    return {
        **{name: row[name] for name in ("question", "answer") if name in row},
        "question_id": key,
        "image": f"{row['imageId']}.jpg",
        "image_id": row["imageId"],
        "question_type": structural,
    }


def _question(where: str, row: Any, number: str) -> Question:
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row must be a dict with 'image' and 'question', not {str(row)[:60]!r}")
    for key in ("question", "image"):
        if key not in row:
            raise DataError(f"{where}: no key {key!r}{nearest(key, map(str, row))}")
        if not isinstance(row[key], str) or not row[key].strip():
            raise DataError(f"{where}: {key!r} must be a string that is not empty, not {str(row[key])[:60]!r}")
    if "\0" in row["image"]:
        raise DataError(f"{where}: 'image' must be the path of a picture, not {row['image'][:60]!r}")
    known = ("image", "question", "question_id", "image_id", *ANSWER_KEYS, "question_type", "answer_type")
    image_id = row.get("image_id")
    if image_id in (None, ""):
        image_id = id_of(row["image"])
    given = row.get("question_id")
    question = Question(
        file=row["image"],
        captions=[],
        image_id=str(image_id),
        extras={key: value for key, value in row.items() if key not in known},
        question=row["question"].strip(),
        question_id=number if given in (None, "") else str(given),
    )
    _fill(question, where, row)
    return question


def _fill(question: Question, where: str, row: dict[str, Any]) -> None:
    """Put what a row says of answers and types into a question."""
    key = _answer_key(row)
    if key is not None:
        question.answers = _answers(where, key, row[key])
    for name in ("question_type", "answer_type"):
        if isinstance(row.get(name), str):
            setattr(question, name, row[name])


def _answers(where: str, key: str, value: Any) -> list[str]:
    if value is None or isinstance(value, str | int):
        value = [value]
    if isinstance(value, list):
        texts = [item.get("answer") if isinstance(item, dict) else item for item in value]
        if all(text is None or isinstance(text, str | int) for text in texts):
            return [str(text).strip() for text in texts if text is not None and str(text).strip()]
    raise DataError(f"{where}: {key!r} must be a string, a list of strings or VQA's list, not {str(value)[:60]!r}")


def _answer_key(row: dict[str, Any]) -> str | None:
    return next((key for key in ANSWER_KEYS if key in row), None)


def _enter(questions: dict[str, Question], new: Question, where: str) -> None:
    """Add a question; one that LAVIS's file and the official one both hold stays the first's."""
    known = questions.setdefault(new.question_id, new)
    if known is new:
        return
    if (known.question, _picture(known)) != (new.question, _picture(new)):
        raise DataError(
            f"{where}: question_id {new.question_id!r} already belongs to {known.question!r} about {known.file!r} and "
            f"is now given to {new.question!r} about {new.file!r}; give every question its own question_id"
        )
    known.answers = known.answers or new.answers


def _picture(question: Question) -> str:
    """What all layouts of COCO share of a picture's name; other names as they are."""
    return PurePosixPath(question.file).stem.rsplit("_", 1)[-1]


def _annotate(
    questions: dict[str, Question], annotations: dict[str, tuple[str, dict[str, Any]]], paths: Iterable[str | Path]
) -> None:
    if not annotations:
        return
    shared = questions.keys() & annotations.keys()
    if not shared:
        raise DataError(f"{_names(paths)}: no annotation belongs to any of the questions; are they of the same split?")
    for key in shared:
        _fill(questions[key], *annotations[key])
    if len(shared) < len(questions):
        logger.warning("%s: %d questions have no annotation", _names(paths), len(questions) - len(shared))


def _names(paths: Iterable[str | Path]) -> str:
    return ", ".join(map(str, paths))

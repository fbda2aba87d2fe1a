"""Miniatures of VQA v2, OK-VQA and GQA in the schema of their official files, with pictures."""

import json
from pathlib import Path

from PIL import Image

ANSWERS = [["no"] * 7 + ["yes"] * 3, ["2"] * 10, ["black and white"] * 5 + ["black"] * 4 + ["white"]]
ASKED = ["Is this man a professional baseball player?", "How many dogs are there?", "What color is the cow?"]
TYPES = [("is this", "yes/no"), ("how many", "number"), ("what color is the", "other")]
IMAGE_IDS = [262148, 393225, 42]


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco_pictures(folder: Path, split: str = "val2014", layout: str = "{split}/COCO_{split}_{number:012d}.jpg") -> Path:
    """COCO's pictures of the questions, in one of the layouts that people have them in."""
    for number in IMAGE_IDS:
        path = folder / layout.format(split=split, number=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((60, 50), 80).convert("RGB").save(path)
    return folder


def vqa_files(folder: Path, split: str = "val2014", prefix: str = "v2_") -> list[Path]:
    """Questions and annotations (none for test splits); ``prefix`` is "" for OK-VQA."""
    info = {"info": {}, "license": {}, "data_type": "mscoco", "data_subtype": split}
    ids = [number * 1000 + place for place, number in enumerate(IMAGE_IDS)]
    asked = [{"image_id": i, "question": q, "question_id": k} for i, q, k in zip(IMAGE_IDS, ASKED, ids, strict=True)]
    name = f"{prefix}OpenEnded_mscoco_{split}_questions.json"
    files = [write(folder / name, {**info, "task_type": "Open-Ended", "questions": asked})]
    if split.startswith("test"):
        return files
    annotations = [
        {
            "question_id": key,
            "image_id": image_id,
            "question_type": kind,
            "answer_type": answer_type,
            "multiple_choice_answer": answers[0],
            "answers": [
                {"answer_id": n, "answer": a, "answer_confidence": "yes", **({} if prefix else {"raw_answer": a + "s"})}
                for n, a in enumerate(answers, start=1)
            ],
        }
        for key, image_id, answers, (kind, answer_type) in zip(ids, IMAGE_IDS, ANSWERS, TYPES, strict=True)
    ]
    return [*files, write(folder / f"{prefix}mscoco_{split}_annotations.json", {**info, "annotations": annotations})]


def gqa_file(folder: Path, name: str = "testdev_balanced_questions.json", answered: bool = True) -> Path:
    """GQA's questions, a dict by question id."""
    rows = [("201307251", "n161313", "Is it overcast?", "no", "verify"), ("2", "2370799", "Who is it?", "man", "query")]
    content = {
        key: {
            "imageId": image,
            "question": question,
            "isBalanced": True,
            "groups": {"global": None, "local": "13-pillow"},
            "types": {"detailed": "weatherVerify", "semantic": "global", "structural": structural},
            "semantic": [{"operation": "select", "dependencies": [], "argument": "scene"}],
            **({"answer": answer, "fullAnswer": f"{answer}, it is."} if answered else {}),
        }
        for key, image, question, answer, structural in rows
    }
    return write(folder / name, content)


def gqa_pictures(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("n161313", "2370799"):
        Image.effect_noise((60, 50), 80).convert("RGB").save(folder / f"{name}.jpg")
    return folder

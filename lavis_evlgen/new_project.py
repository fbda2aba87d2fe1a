"""From a file of captions or questions to a configuration that trains on them: check, split, write."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.configuration.read import read_config
from lavis_evlgen.data_check import DataCheck, Item, check_data
from lavis_evlgen.datasets.caption_annotations import dict_rows
from lavis_evlgen.datasets.questions import read_questions
from lavis_evlgen.datasets.records import NOUNS, Kind, file_rows, join_rows
from lavis_evlgen.embedded.weights import resolve
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.project_yaml import EMBEDDED_LLM, Project

LAVIS_VITS = ("eva_clip_g", "clip_L")


@dataclass
class OwnData:
    """An annotation file: its rows as they stand there, and what they say of each picture or clip."""

    path: Path
    kind: Kind
    questions: bool
    rows: list[dict[str, Any]]
    items: list[Item]
    empty: int

    @property
    def nouns(self) -> str:
        return "questions" if self.questions else "captions"

    def rows_of(self, files: set[str]) -> list[dict[str, Any]]:
        return [row for row in self.rows if row[self.kind] in files]


def new_project(
    data: Path,
    folder: Path,
    out: Path = Path("project.yaml"),
    val: Path | None = None,
    val_share: float = 0.05,
    vit: str | None = None,
    llm: str | None = None,
    questions: bool = False,
    device: str | None = None,
    decode_all: bool = False,
    overwrite: bool = False,
    say: Callable[[str], Any] = print,
) -> Project:
    """Check the data, split it by picture, and write a configuration that trains on it.

    Args:
        data: json, jsonl or csv file of rows with ``image`` and ``caption``, with ``image``, ``question`` and
            ``answer``, or with ``video`` and ``caption``; COCO's form of captions too.
        folder: where the pictures or clips are.
        out: the yaml; split files are written beside it.
        val: rows to validate on; otherwise ``val_share`` of the pictures are taken out of ``data``, always the same.
        vit, llm: names or folders of a ViT (``hf:...``) and a language model; the embedded ones by default.
        questions: insist on questions and answers.
        device: cpu or cuda; by default what there is.
        say: gets the lines of the report.

    Raises:
        ConfigError: ``out`` exists already, or an option does not fit.
        DataError: a file is missing or damaged, or no picture of it can be used.
    """
    if out.exists() and not overwrite:
        raise ConfigError(f"--out {out}: this file exists; name another one, or add --overwrite")
    if out.suffix not in (".yaml", ".yml") or out.stem in (".", ".."):
        raise ConfigError(f"--out {out}: the name must end in .yaml")
    if not 0 < val_share < 1:
        raise ConfigError(f"--val-share {val_share}: must lie between 0 and 1, such as 0.05")
    if not folder.is_dir():
        raise DataError(f"--images {folder}: this folder does not exist (looked for {folder.absolute()})")
    own = read_own_data(data, folder, questions)
    count_tokens = _token_counter(llm or EMBEDDED_LLM)
    check = _checked(own, folder, count_tokens, decode_all, say)
    usable = [item.file for item in own.items if item.texts and item.file not in check.bad]
    if val is not None:
        held_out = read_own_data(val, folder, own.questions)
        if (held_out.kind, held_out.questions) != (own.kind, own.questions):
            raise DataError(f"--val {val}: its rows are of another kind than those of {data}")
        val_check = _checked(held_out, folder, count_tokens, decode_all, say)
        shared = {item.file for item in held_out.items} & set(usable)
        if shared:
            say(f"in both files, and left out of training: {len(shared):,}, e.g. {min(shared)}")
        files = (
            [file for file in usable if file not in shared],
            [item.file for item in held_out.items if item.texts and item.file not in val_check.bad],
        )
    else:
        held_out = own
        files = split_files(usable, val_share, check.same)
    noun = NOUNS[own.kind]
    if not all(files):
        raise DataError(f"{data}: {len(usable)} usable {noun}s are too few to train on some and validate on others")
    out.parent.mkdir(parents=True, exist_ok=True)
    written = {}
    for split, source, chosen in (("train", own, files[0]), ("val", held_out, files[1])):
        path, rows = out.with_name(f"{out.stem}_{split}.jsonl"), source.rows_of(set(chosen))
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        written[split] = str(path), sum(len(item.texts) for item in source.items if item.file in set(chosen))
        say(f"wrote {path}: {written[split][1]:,} {own.nouns} of {len(chosen):,} {noun}s")
    project = Project(
        name=out.stem,
        kind=own.kind,
        questions=own.questions,
        folder=str(folder),
        train=[written["train"][0]],
        val=[written["val"][0]],
        items=written["train"][1],
        pictures=len(files[0]),
        longest=int(np.percentile(check.lengths["tokens"], 99)) if check.lengths.get("tokens") else 0,
        vit=vit if vit is None or vit.startswith("hf:") or vit in LAVIS_VITS else f"hf:{vit}",
        llm=llm,
        **_machine(device),
    )
    _write(project, out, say)
    return project


def read_own_data(path: Path, folder: Path, questions: bool = False) -> OwnData:
    """Rows of somebody's own file; the first one says whether it is about pictures or clips, captions or questions."""
    located = list(file_rows(path, dict_rows))
    rows = [row for _, row in located]
    first = rows[0] if rows and isinstance(rows[0], dict) else {}
    kind: Kind = "video" if "video" in first and "image" not in first else "image"
    if "question" in first or questions:
        if kind == "video":
            raise DataError(f"{path}: questions about clips cannot be trained on yet; give rows with 'caption'")
        asked, _ = read_questions([path], folder)
        texts: dict[str, list[str]] = {question.file: [] for question in asked}
        for question in asked:
            if question.answers:
                texts[question.file].append(question.question)
        unanswered = sum(not question.answers for question in asked)
        return OwnData(path, kind, True, rows, [Item(*each) for each in texts.items()], unanswered)
    records = join_rows(located, path, need_captions=False, kind=kind)
    given = [caption for row in rows for caption in _captions(row)]
    empty = sum(not (caption and caption.strip()) for caption in given)
    return OwnData(path, kind, False, rows, [Item(record.file, record.captions) for record in records], empty)


def split_files(files: Sequence[str], share: float, same: Sequence[Sequence[str]] = ()) -> tuple[list[str], list[str]]:
    """Training and validation files, always the same ones for the same names; copies of one picture stay together.

    Files are ordered by a hash of their names, so that few change sides when others join them later.
    """
    leader = {file: group[0] for group in same for file in group}
    groups: dict[str, list[str]] = {}
    for file in files:
        groups.setdefault(leader.get(file, file), []).append(file)
    wanted = max(2, round(share * len(files)))  # shuffled pictures need two
    val: set[str] = set()
    for name in sorted(groups, key=lambda name: hashlib.sha256(name.encode()).digest())[: max(0, len(groups) - 1)]:
        if len(val) >= wanted:
            break
        val.update(groups[name])
    return [file for file in files if file not in val], [file for file in files if file in val]


def _captions(row: dict[str, Any]) -> list[Any]:
    found = row.get("caption", row.get("captions", []))
    return found if isinstance(found, list) else [found]


def _checked(own: OwnData, folder: Path, count_tokens: Any, decode_all: bool, say: Callable[[str], Any]) -> DataCheck:
    check = check_data(own.items, folder, own.kind, own.empty, count_tokens, decode_all, show=True)
    for line in (f"{own.path}:", *(f"  {line}" for line in check.report(own.nouns))):
        say(line)
    if check.bad >= {item.file for item in own.items}:
        reason = next(iter(check.unreadable.values()), f"looked for {(folder / own.items[0].file).absolute()}")
        raise DataError(f"no {NOUNS[own.kind]} of {own.path} can be used below {folder}: {reason}")
    return check


def _token_counter(llm: str) -> Callable[[Sequence[str]], list[int]] | None:
    """Counts tokens as the language model does, where its tokenizer is at hand; nothing is downloaded for it."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(resolve(llm), local_files_only=True)
    except (OSError, ValueError):
        return None

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False).input_ids] if texts else []

    return count


def _machine(device: str | None) -> dict[str, Any]:
    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"--device {device}: is neither cpu nor cuda")
    if (device or ("cuda" if torch.cuda.is_available() else "cpu")) == "cpu":
        return {"device": "cpu", "precision": "fp32", "num_workers": 0}
    bf16 = not torch.cuda.is_available() or torch.cuda.is_bf16_supported()
    return {"device": "cuda", "precision": "bf16" if bf16 else "fp16", "num_workers": min(4, os.cpu_count() or 1)}


def _write(project: Project, out: Path, say: Callable[[str], Any]) -> None:
    command = f"python -m lavis_evlgen.cli train --cfg-path {out}"
    out.write_text(project.yaml(command), encoding="utf-8")
    check_config(read_config(str(out), []))
    say(f"wrote {out}: {project.max_iters} steps on {project.device}; read it, every line can be changed")
    say(f"train: {command}")
    if project.device == "cuda":
        several = "python -m torch.distributed.run --nproc_per_node=NUMBER -m lavis_evlgen.train"
        say(f"on several GPUs: {several} --cfg-path {out}")
    verb = "answer --question TEXT" if project.questions else "caption"
    file = "CLIP" if project.kind == "video" else "PICTURE"
    say(f"afterwards: python -m lavis_evlgen.cli {verb} --checkpoint outputs/{project.name}/model.pth {file}")

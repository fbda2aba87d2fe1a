"""What a run leaves behind, read again: log.jsonl, evaluate.txt, config.yaml, captions, facts and comparisons."""

import copy
import json
from typing import Any

import pytest
import yaml
from comparison_example import document
from guard import put
from hypothesis import strategies as st
from mutations import as_json, damaged, mutated, one_of_each

from lavis_evlgen.comparison.arm_run import FACTS, read_facts
from lavis_evlgen.comparison.record import RunCurve
from lavis_evlgen.errors import DataError, EvlgenError
from lavis_evlgen.reports.comparison.file import read_comparison
from lavis_evlgen.reports.run_files import RunFiles
from lavis_evlgen.runners.progress import RunLog

LOG = [
    {"iters": 1, "loss": 2.5, "lr": 1e-3, "images_per_s": 8.0, "seconds": 1.0},
    {"iters": 2, "loss": None, "seconds": 1.0},
    {"iters": 2, "held_out_loss": 1.5, "shuffled_loss": 2.0},
    {"iters": 2, "split": "val", "CIDEr": 0.5, "subsets": {"a": {"CIDEr": 0.1}}},
]
SCORES = [{"val": {"epoch": 2, "CIDEr": 0.5}}, {"test": {"epoch": "best", "CIDEr": 0.5, "captions": 3}}]
CAPTIONS = [{"image_id": "7", "caption": "a cat"}]
CONFIG = {"model": {"arch": "tiny"}, "datasets": {"x": {}}, "run": {"test_splits": ["test"], "batch_size_train": 2}}


def lines(rows: Any) -> bytes:
    return b"".join(as_json(row) + b"\n" for row in rows) if isinstance(rows, list) else as_json(rows)


FILES = {
    "log.jsonl": lines(LOG),
    "evaluate.txt": lines(SCORES),
    "config.yaml": yaml.safe_dump(CONFIG).encode(),
    "result/test_epochbest.json": as_json(CAPTIONS),
    "result/val_epoch2.json": as_json(CAPTIONS),
}


def check_run(guard: Any, files: dict[str, bytes]) -> None:
    """A run folder is read to the end, or one of its files is named."""
    folder = guard.empty()
    for name, content in {**FILES, **files}.items():
        put(folder / name, content)

    def read_all() -> Any:
        run = RunFiles.read(folder)
        found = [
            run.curve("loss"),
            run.last("loss"),
            run.steps,
            run.images_per_step,
            run.train_seconds,
            run.unseen_split,
        ]
        return [found, run.texts(run.known_split)]

    found = [guard.read(read_all), guard.read(RunCurve.read, folder)]
    for each in found:
        if isinstance(each, EvlgenError):
            assert str(folder) in str(each) or str(each).startswith("run."), str(each)
    log = RunLog(folder)
    kept = guard.read(log.rewind, 1)
    assert all(row["iters"] <= 1 for row in kept)
    guard.read(log.write, {"iters": 2, "loss": 1.0})
    assert guard.read(log.read) == [*kept, {"iters": 2, "loss": 1.0}]


def changed(content: Any, write: Any) -> st.SearchStrategy[bytes]:
    return mutated(content).map(write) | damaged(write(content))


def test_runs(fuzz, guard):
    files = st.one_of(
        *(
            st.tuples(st.just(name), changed(content, write))
            for name, content, write in [
                ("log.jsonl", LOG, lines),
                ("evaluate.txt", SCORES, lines),
                ("config.yaml", CONFIG, as_json),
                ("result/test_epochbest.json", CAPTIONS, as_json),
            ]
        )
    )
    fuzz(lambda file: check_run(guard, dict([file])), files, 120)


@pytest.mark.parametrize(
    "line",
    [b"5", b"[1]", b'{"loss": 1}', b'{"iters": "x"}', b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b'{"iters": NaN}'],
)
def test_damaged_lines_of_a_log_are_dropped(guard, line, caplog):
    put(guard.inside / "log.jsonl", lines(LOG[:1]) + line + b"\n" + lines(LOG[1:]))
    assert guard.read(RunLog(guard.inside).read) == LOG
    assert "dropped line 2 of" in caplog.text


def test_files_of_another_kind_are_named(guard):
    put(guard.inside / "log.jsonl", lines([{"iters": 1, "seconds": "long"}]))
    with pytest.raises(DataError, match="log.jsonl: a line of it is damaged"):
        raise guard.read(RunCurve.read, guard.inside)
    for name, content in FILES.items():
        put(guard.inside / name, content)
    put(guard.inside / "evaluate.txt", lines([*SCORES, 5]))
    with pytest.raises(DataError, match="evaluate.txt, line 3 is damaged"):
        raise guard.read(RunFiles.read, guard.inside)
    put(guard.inside / FACTS, b'{"scores": {}}')
    with pytest.raises(DataError, match="no scores or images_per_step"):
        raise guard.read(read_facts, guard.inside)


def test_comparisons(fuzz, guard):
    def check(content: bytes) -> None:
        path = put(guard.inside / "comparison.json", content)
        found = guard.read(read_comparison, path)
        assert not isinstance(found, EvlgenError) or str(path) in str(found)

    whole = document()
    small = copy.deepcopy(whole)
    small["arms"] = small["arms"][:1]
    small["arms"][0]["runs"] = small["arms"][0]["runs"][:1]
    fuzz(check, one_of_each(mutated, [small]).map(as_json) | damaged(json.dumps(small).encode()), 60)

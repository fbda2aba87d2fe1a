"""The result file of LAVIS's own tasks."""

import json

import pytest
from lavis.tasks.base_task import BaseTask

from lavis_evlgen.errors import EvlgenError
from lavis_evlgen.lavis_repairs import repair


def test_rows_are_written_once_and_in_order(tmp_path):
    repair()
    rows = [{"id": 2, "answer": "a"}, {"id": 1, "answer": "b"}, {"id": 2, "answer": "c"}]
    path = BaseTask.save_result(rows, str(tmp_path), "val", remove_duplicate="id")
    assert path == str(tmp_path / "val.json")
    assert json.loads((tmp_path / "val.json").read_text()) == rows[:2]
    BaseTask.save_result(rows, str(tmp_path), "all")
    assert json.loads((tmp_path / "all.json").read_text()) == rows
    assert sorted(each.name for each in tmp_path.iterdir()) == ["all.json", "val.json"]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    repair()
    with pytest.raises(EvlgenError, match=r"could not write to .*gone: .*Free some space"):
        BaseTask.save_result([], str(tmp_path / "gone"), "val")

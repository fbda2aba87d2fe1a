import pickle

import pytest

from lavis_evlgen.datasets import captioned
from lavis_evlgen.datasets.image_text import ImageCaptionDataset, ImageCaptionEvalDataset
from lavis_evlgen.datasets.record_table import RecordTable
from lavis_evlgen.datasets.records import Record

RECORDS = [Record(f"{n}.jpg", [f"caption {n}", "ü"] * (n % 3), str(n), {"size": n} if n % 2 else {}) for n in range(50)]


def test_it_is_the_list_it_was_made_of():
    table = RecordTable(iter(RECORDS))
    assert len(table) == 50 and list(table) == RECORDS
    assert table[-1] == RECORDS[-1] and table[3:9:2] == RECORDS[3:9:2]
    for index in (50, -51):
        with pytest.raises(IndexError):
            table[index]
    assert list(RecordTable([])) == []
    assert list(pickle.loads(pickle.dumps(table))) == RECORDS


def test_large_data_sets_use_it_and_stay_the_same(tmp_path, monkeypatch):
    path = tmp_path / "many.csv"
    path.write_text("image,caption\n" + "".join(f"{n // 2}.jpg,caption {n}\n" for n in range(40)))
    few = ImageCaptionDataset(None, None, str(tmp_path), [str(path)])
    monkeypatch.setattr(captioned, "MANY", 10)
    many = ImageCaptionDataset(None, None, str(tmp_path), [str(path)])
    assert isinstance(few.records, list) and isinstance(many.records, RecordTable)
    assert len(few) == len(many) == 40
    assert [many.record(index) for index in range(40)] == [few.record(index) for index in range(40)]
    assert many.ground_truth() == few.ground_truth()
    evaluated = ImageCaptionEvalDataset(None, None, str(tmp_path), [str(path)])
    assert len(evaluated) == 20 and evaluated[3].path == str(tmp_path / "3.jpg")

"""A log that grows, breaks off and is replaced while it is read."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_evlgen.watch import tail as module
from lavis_evlgen.watch.tail import LogTail


class Reader:
    """What a tail has given, and how often it began anew."""

    def __init__(self, path: Path) -> None:
        self.tail = LogTail(path)
        self.seen: list[dict] = []
        self.restarts = 0

    def restart(self) -> None:
        self.seen = []
        self.restarts += 1

    def read(self) -> list[dict]:
        for record in self.tail.records(self.restart):
            self.seen.append(record)
        return self.seen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def add(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def test_half_a_line_waits_for_its_other_half(path):
    reader = Reader(path)
    assert reader.read() == []
    add(path, '{"iters": 1}\n{"ite')
    assert reader.read() == [{"iters": 1}]
    add(path, 'rs": 2}')
    assert reader.read() == [{"iters": 1}]
    add(path, "\n")
    assert reader.read() == [{"iters": 1}, {"iters": 2}] and reader.tail.damaged == 0


def test_what_was_read_is_not_read_again(path):
    reader = Reader(path)
    add(path, "".join(json.dumps({"iters": number}) + "\n" for number in range(1000)))
    assert len(reader.read()) == 1000
    with open(path, "r+b") as file:  # far before the place that was reached: nobody looks there
        file.write(b"x" * 40)
    add(path, '{"iters": 1000}\n')
    assert len(reader.read()) == 1001 and reader.restarts == 0 and reader.tail.damaged == 0


def test_a_log_rewound_by_a_resumed_run_is_read_from_its_beginning(path):
    reader = Reader(path)
    lines = [json.dumps({"iters": number}) + "\n" for number in range(1, 9)]
    add(path, "".join(lines))
    reader.read()
    other = path.with_suffix(".unfinished")
    other.write_text("".join(lines[:4]))
    other.replace(path)
    assert reader.read() == [{"iters": number} for number in range(1, 5)] and reader.restarts == 1
    # replaced again, and by now longer than before: alike up to the place that was reached
    other.write_text("".join(lines))
    other.replace(path)
    assert reader.read() == [{"iters": number} for number in range(1, 9)] and reader.restarts == 2


def test_a_log_cut_in_place_and_one_that_is_gone(path):
    reader = Reader(path)
    add(path, '{"iters": 1}\n{"iters": 2}\n')
    reader.read()
    path.write_text('{"iters": 7}\n')
    assert reader.read() == [{"iters": 7}] and reader.restarts == 1
    path.unlink()
    assert reader.read() == [] and reader.restarts == 2
    assert reader.read() == [] and reader.restarts == 2


def test_lines_that_are_no_records_are_left_out_and_counted(path):
    path.write_bytes(b'{"iters": 1}\n{"iters": 2, "lo\n\n[1]\nnull\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"iters": 3}\n')
    reader = Reader(path)
    assert reader.read() == [{"iters": 1}, {"iters": 3}] and reader.tail.damaged == 5


@settings(max_examples=40, deadline=None)
@given(
    records=st.lists(
        st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=3), max_size=20
    ),
    cuts=st.lists(st.integers(0, 400), max_size=10),
    chunk=st.integers(1, 50),
)
def test_however_it_is_cut_the_records_are_the_same(tmp_path_factory, records, cuts, chunk):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    reader = Reader(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
        for start, end in pairwise(places):
            with open(path, "ab") as file:
                file.write(content[start:end])
            reader.read()
    assert reader.seen == records and reader.restarts == 0

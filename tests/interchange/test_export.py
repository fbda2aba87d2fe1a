"""`cli export`: the folder of a run's model, and a card that says what the run recorded and what it did not."""

import json
import shutil

import pytest
import torch
import yaml
from reports.finished_run import make_data, train

from lavis_evlgen import cli
from lavis_evlgen.models.evlgen import EVLGen


@pytest.fixture(scope="module")
def finished(tiny_config, tmp_path_factory):
    """The folder of a run with its report."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "ATTRIBUTION.txt").write_text("Drawn by somebody.\n")
    run = train(folder, tiny_config("any"), make_data(folder), valid_splits=["test"], health_freq=2, health_batches=1)
    assert cli.main(["report", str(run), "--command", "make it"]) == 0
    return run


def exported(capsys, *argv):
    capsys.readouterr()
    code = cli.main(["export", *map(str, argv)])
    return code, *capsys.readouterr()


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_a_run_becomes_a_folder_that_loads(finished, tmp_path, capsys):
    out = tmp_path / "captioner"
    assert exported(capsys, finished, "--out", out) == (0, f"{out}\n", "")
    torch.manual_seed(0)  # the tiny frozen ViT has no file of weights
    weights = EVLGen.from_pretrained(out).trainable_state_dict()
    expected = torch.load(finished / "model.pth", weights_only=True)["model"]
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    processors = json.loads((out / "preprocessor_config.json").read_text())
    assert processors["vis_processor"]["train"]["image_size"] == processors["vis_processor"]["eval"]["image_size"] == 56


def test_the_card_says_what_the_run_recorded(finished, tmp_path, capsys):
    out = tmp_path / "captioner"
    assert exported(capsys, finished, "--out", out, "--dtype", "bf16", "--license", "cc-by-4.0")[0] == 0
    card = (out / "README.md").read_text()
    tags = ["evlgen", "lavis", "image-captioning"]
    assert front_matter(card) == {
        "library_name": "lavis_evlgen", "pipeline_tag": "image-to-text", "tags": tags, "license": "cc-by-4.0"
    }  # fmt: skip
    report = json.loads((finished / "report.json").read_text())
    assert f"{report['trainable_parameters']:,} numbers in bf16" in card
    assert "| steps | 4 |" in card and "| pictures a step | 4 |" in card and "| pictures seen | 16 |" in card
    assert (
        "init_lr 0.001" in card and "batch_size_train 2, accum_grad_iters 2" in card and "| command | make it |" in card
    )
    named = report["splits"]["test"]["named_right"]
    row = next(line for line in card.splitlines() if line.startswith("| test |"))
    assert row.startswith("| test | 3 | ") and f"| {named:.3f} |" in row
    assert f"Loss on held-out pictures {report['held_out_loss']:.3f} nats a token" in card
    assert f"with the captions of other pictures {report['shuffled_loss']:.3f}" in card
    assert "## Attribution\n\nDrawn by somebody." in card and "Licence of these weights: cc-by-4.0." in card
    assert "train: train.jsonl; test: test.jsonl; test_unseen: test_unseen.jsonl" in card
    assert str(tmp_path.parent) not in card.replace(str(tmp_path), "")  # no path of the data
    assert (
        'load_model_and_preprocess("evlgen", "captioner")' in card
        and "caption --checkpoint captioner photo.jpg" in card
    )
    assert f"torch {torch.__version__.split('+')[0]}" in card.split("Trained with")[1]


def test_what_was_not_recorded_is_said_to_be_missing(finished, tmp_path, capsys):
    alone = tmp_path / "elsewhere/model.pth"
    alone.parent.mkdir()
    shutil.copy(finished / "model.pth", alone)
    assert exported(capsys, alone, "--out", tmp_path / "out")[0] == 0
    card = (tmp_path / "out/README.md").read_text()
    for name in ("steps", "pictures seen", "training time", "machine", "command", "date of the report"):
        assert f"| {name} | not recorded |" in card, name
    assert "## Results\n\nNot recorded: the run has no evaluation." in card
    assert "Not recorded: the run did not compare held-out pictures" in card
    assert "Trained with: not recorded. Written with: python" in card
    assert "Licence of these weights: not stated." in card and "license" not in front_matter(card)


def test_embedded_parts_have_their_licences_and_data_its_spec(tmp_path, capsys, tiny_config):
    spec = {"pictures": {"train": 7200, "test": 600}, "things": ["dog", "cat"], "seed": 0, "openmoji": "17.0.0"}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    model = {**tiny_config("any"), "arch": "evlgen", "llm_model": "embedded:smollm2-135m"}
    processor = {"eval": {"name": "blip_image_eval", "image_size": 56}}
    data = {"images": str(tmp_path), "annotations": {"train": str(tmp_path / "t.jsonl")}, "vis_processor": processor}
    config = {"model": model, "datasets": {"image_caption": data}}
    torch.save({"model": {"x": torch.zeros(2, 3)}, "config": config}, tmp_path / "model.pth")
    assert exported(capsys, tmp_path, "--out", tmp_path / "out")[0] == 0
    card = (tmp_path / "out/README.md").read_text()
    row = "| frozen language model | `embedded:smollm2-135m` | SmolLM2-135M-Instruct: Hugging Face, Apache-2.0; "
    assert row in card and "licence by its metadata: Apache-2.0 |" in card
    assert "| frozen ViT | `eva_vit` | see its own page |" in card
    assert "6 numbers in fp32" in card and "train 7,200, test 600; 2 things; seed 0; openmoji 17.0.0" in card


def test_what_cannot_be_exported_is_said_in_one_line(finished, tmp_path, capsys):
    torch.save({"x": torch.zeros(1)}, tmp_path / "bare.pth")
    torch.save({"model": {}, "config": {"model": {"arch": "blip_caption"}}}, tmp_path / "lavis.pth")
    torch.save({"model": {"x": 3}, "config": {"model": {"arch": "evlgen"}}}, tmp_path / "odd.pth")
    spying = {"arch": "evlgen", "prompt": "${oc.env:HOME}"}
    torch.save({"model": {}, "config": {"model": spying}}, tmp_path / "spy.pth")
    broken = tmp_path / "run"
    broken.mkdir()
    shutil.copy(finished / "model.pth", broken)
    (broken / "evaluate.txt").write_text("{")
    for source, message in {
        tmp_path / "gone.pth": "there is no file",
        tmp_path: "has no model.pth and no checkpoint_best.pth yet; in",
        tmp_path / "bare.pth": "bare.pth does not say of which model it is",
        tmp_path / "lavis.pth": "lavis.pth is of blip_caption, which is no model of this package",
        tmp_path / "odd.pth": "'model' holds other things than tensors",
        tmp_path / "spy.pth": "spy.pth: '${oc.env:HOME}' holds '${'",
        broken: "evaluate.txt, line 1 is damaged",
    }.items():
        code, out, error = exported(capsys, source, "--out", tmp_path / "out")
        assert (code, out) == (2, "") and message in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()

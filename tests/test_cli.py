"""The command line, on a tiny model that it trains itself."""

import json
import subprocess
import sys
from functools import partial

import pytest
import torch
from PIL import Image
from reports.finished_run import MODEL, PICTURES, make_data, write_config

from lavis_evlgen import cli
from lavis_evlgen.errors import DataError


@pytest.fixture(scope="module")
def folder(tiny_config, tmp_path_factory):
    """A folder with a configuration, pictures and, after `evlgen train`, the run."""
    folder = tmp_path_factory.mktemp("cli")
    config = write_config(folder, tiny_config("any"), make_data(folder), max_iters=2)
    assert cli.main(["train", "--cfg-path", str(config), "--options", "run.max_iters=1", "run.log_freq=1"]) == 0
    return folder


@pytest.fixture
def run(folder, run_command):
    """Runs a command in the folder: (exit code, stdout, stderr)."""
    return partial(run_command, folder)


def model_and_images(folder, tiny_model):
    """The trained model without the command, built from the same seed, and what its processor makes of PICTURES."""
    from lavis.processors.blip_processors import BlipImageEvalProcessor

    model = tiny_model("any")
    model.load_checkpoint(str(folder / "run" / "model.pth"))
    process = BlipImageEvalProcessor(image_size=56)
    return model, torch.stack([process(Image.open(folder / path).convert("RGB")) for path in PICTURES])


def test_train_passes_its_arguments_on(folder):
    log = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["iters"] for row in log if "loss" in row] == [1]
    assert (folder / "run" / "model.pth").is_file()


def test_evaluate_writes_scores_and_trains_nothing(run, folder):
    before = (folder / "run" / "evaluate.txt").read_text()
    code, _, _ = run("evaluate", "--cfg-path", "train.yaml", "--options", "run.max_iters=1")
    after = (folder / "run" / "evaluate.txt").read_text()
    assert code == 0 and after.startswith(before) and after.count("\n") == 2 * before.count("\n")


def test_captions_are_the_models_own(run, folder, tiny_model):
    model, images = model_and_images(folder, tiny_model)
    expected = model.generate({"image": images}, num_beams=2, max_length=6)
    code, out, _ = run("caption", *MODEL, "--num-beams", "2", "--max-length", "6", *PICTURES)
    assert code == 0
    assert out == "".join(f"{path}: {text}\n" for path, text in zip(PICTURES, expected, strict=True))
    assert any(expected), "an empty caption would say nothing about the options"
    prompted = model.generate({"image": images[:1], "prompt": "a photo"}, num_beams=1, max_length=6)
    options = ("--num-beams", "1", "--max-length", "6", "--prompt", "a photo")
    assert run("caption", *MODEL, *options, PICTURES[0])[1] == f"{PICTURES[0]}: {prompted[0]}\n"
    assert prompted[0] != expected[0]


def test_several_captions_by_beams_or_sampling(run, folder, tiny_model):
    model, images = model_and_images(folder, tiny_model)
    expected = model.generate({"image": images[:1]}, num_beams=5, num_captions=3)
    _, out, _ = run("caption", *MODEL, "--num-captions", "3", "--json", PICTURES[0])
    assert json.loads(out) == {"image": PICTURES[0], "captions": expected}
    model, images = model_and_images(folder, tiny_model)
    sampled = model.generate({"image": images[:1]}, use_nucleus_sampling=True)
    assert run("caption", *MODEL, "--nucleus", PICTURES[0])[1] == f"{PICTURES[0]}: {sampled[0]}\n"
    code, _, error = run("caption", *MODEL, "--num-captions", "9", PICTURES[0])
    assert code == 2 and "num_captions: 9 needs num_beams of at least 9" in error


def test_unreadable_pictures_are_told_and_the_others_go_on(run, folder):
    Image.effect_noise((64, 64), 90).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:900])
    (folder / "text.png").write_text("no picture")
    pictures = ("gone.png", "cut.jpg", PICTURES[0], "text.png", "whole.jpg")
    code, out, _ = run("caption", *MODEL, "--num-beams", "1", *pictures)
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert code == 1 and tuple(lines) == pictures
    assert lines["gone.png"] == "error: no such file"
    assert lines["cut.jpg"].startswith("error: damaged picture") and "truncated" in lines["cut.jpg"]
    assert lines["text.png"] == "error: not a picture that PIL can read"
    assert not any("error" in lines[path] for path in (PICTURES[0], "whole.jpg"))
    (folder / "clip.mp4").write_bytes(bytes(99))
    code, out, _ = run("caption", *MODEL, "clip.mp4", "gone.mp4")
    text = "not a picture that PIL can read; clips need a model of clips, such as evlgen_video trains"
    assert (code, out) == (1, f"clip.mp4: error: {text}\ngone.mp4: error: no such file\n")
    code, out, _ = run("answer", *MODEL, "--question", "what?", "--json", "gone.png")
    assert code == 1 and json.loads(out) == {"image": "gone.png", "error": "no such file"}


def test_answers_are_the_models_own(run, folder, tiny_model):
    model, images = model_and_images(folder, tiny_model)
    expected = [
        model.predict_answers({"image": images[:1], "text_input": ["what is it?"]}, num_beams=2, prompt=prompt)[0]
        for prompt in ("Question: {} Short answer:", "{}")
    ]
    said = [
        run("answer", *MODEL, "--question", "what is it?", "--num-beams", "2", *options, PICTURES[0])[1]
        for options in ((), ("--prompt", "{}"))
    ]
    assert said == [f"{PICTURES[0]}: {text}\n" for text in expected] and expected[0] != expected[1]
    code, _, error = run("answer", *MODEL, "--question", "what?", "--prompt", "Answer:", PICTURES[0])
    assert (
        code == 2
        and error == "error: --prompt 'Answer:' must hold {} once, where the question goes, and no other brace\n"
    )


def test_show_draws_the_last_layer_or_every_one(run, folder):
    assert run("show", *MODEL, PICTURES[0])[:2] == (0, "token_map.png\n")
    assert Image.open(folder / "token_map.png").size == (448, 448)
    assert run("show", *MODEL, "--layers", "--out", "maps/all.png", PICTURES[0])[:2] == (0, "maps/all.png\n")
    width, height = Image.open(folder / "maps" / "all.png").size
    assert width == 3 * 448 + 2 * 12 and height > 448
    code, _, error = run("show", *MODEL, "gone.png")
    assert code == 2 and error == "error: gone.png: no such file\n"
    code, _, error = run("show", *MODEL, "--out", "map.xyz", PICTURES[0])
    assert code == 2 and error.startswith("error: --out map.xyz: cannot be written")


def test_report_names_its_page_and_its_figures(run, folder):
    code, out, _ = run("report", "run", "--command", "evlgen train")
    assert code == 0 and out.splitlines()[-1] == "run/report.html"
    figures = json.loads((folder / "run" / "report.json").read_text())
    assert figures["command"] == "evlgen train" and f"named_right: {figures['named_right']:.3f}\n" in out
    code, _, error = run("report", "test")
    assert code == 2 and error.startswith("error: test is no run folder")


def test_a_model_type_with_a_checkpoint(run, monkeypatch):
    code, _, error = run("caption", "--model", "evlgen", "--model-type", "dmo", *PICTURES)
    assert code == 2 and "model_type: 'dmo' is unknown for EVLGenAny; choose one of demo" in error
    seen = {}

    def load(name, model_type, device, **overrides):
        seen.update(name=name, model_type=model_type, **overrides)
        raise DataError("seen")

    monkeypatch.setattr("lavis_evlgen.loading.load_model_and_preprocess", load)
    run("caption", "--model", "evlgen_opt", "--model-type", "caption_coco_opt2.7b", *MODEL, *PICTURES)
    assert seen == {
        "name": "evlgen_opt",
        "model_type": "caption_coco_opt2.7b",
        "pretrained": "run/model.pth",
        "load_finetuned": False,
    }
    seen.clear()
    run("caption", *PICTURES)
    assert seen == {"name": "evlgen", "model_type": None}


def test_what_a_user_can_mend_is_said_in_one_line(run, folder):
    torch.save({"x": torch.zeros(1)}, folder / "bare.pth")
    (folder / "random.pth").write_bytes(bytes(range(256)))
    for argv, message in {
        ("--checkpoint", "gone.pth"): "--checkpoint: there is no file 'gone.pth'",
        ("--checkpoint", "random.pth"): "--checkpoint: 'random.pth' is damaged",
        ("--checkpoint", "bare.pth"): "--checkpoint bare.pth does not say of which model it is: add --model",
        ("--model", "evlgn"): "model 'evlgn' is not registered; did you mean 'evlgen'?",
        ("--device", "gpu"): "--device gpu: torch knows no such device",
    }.items():
        code, out, error = run("caption", *argv, PICTURES[0])
        assert (code, out) == (2, "") and message in error and error.count("\n") == 1
    code, _, error = run("train", "--cfg-path", "gone.yaml")
    assert code == 2 and "gone.yaml: there is no such file" in error


def test_a_gpu_that_is_not_there_is_told_by_the_option(run, folder, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run("caption", *MODEL[:-1], "cuda", "--num-beams", "1", PICTURES[0])[0] == 0
    assert "--device is cuda, but torch finds no GPU here: running on the CPU." in caplog.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    code, _, error = run("caption", "--device", "cuda:2", PICTURES[0])
    assert (code, error) == (2, "error: --device cuda:2: torch finds 2 GPUs here, from cuda:0 on\n")


def test_wrong_arguments_are_refused(capsys):
    for argv in (["caption", "x.png", "--beams", "3"], ["caption"], ["sing"], ["answer", "x.png"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(argv)
        assert stop.value.code == 2
    assert "unrecognized arguments: --beams" in capsys.readouterr().err


def test_module_runs_as_a_program(folder):
    argv = [sys.executable, "-m", "lavis_evlgen.cli", "caption", *MODEL, "--num-beams", "1", "gone.png"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "gone.png: error: no such file\n", done.stderr

"""`show` on a tiny model that it finds trained."""

import json
import re
import shlex
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from lavis.processors.blip_processors import BlipImageEvalProcessor
from PIL import Image
from reports.finished_run import MODEL, PICTURES, make_data, train
from video_files import write_clip

from lavis_evlgen import cli
from lavis_evlgen.reports.tokens.figures import map_figures
from lavis_evlgen.reports.tokens.map import patch_tokens, source_maps
from lavis_evlgen.reports.tokens.output import check_out


@pytest.fixture(scope="module")
def folder(tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("show")
    files = make_data(folder, {"train": 4, "test": 2})
    train(folder, tiny_config("any"), files, max_iters=6, init_lr=0.5, warmup_steps=0)
    write_clip(folder / "clip.mp4", 8)
    return folder


@pytest.fixture
def run(folder, run_command):
    """Runs `show` in the folder: (exit code, stdout, stderr)."""
    return partial(run_command, folder, "show", *MODEL)


def pair_agreement(first: np.ndarray, second: np.ndarray) -> float:
    """The adjusted Rand index by counting pairs."""
    pairs = list(combinations(range(first.size), 2))
    same = [{pair for pair in pairs if ids.flat[pair[0]] == ids.flat[pair[1]]} for ids in (first, second)]
    chance = len(same[0]) * len(same[1]) / len(pairs)
    return (len(same[0] & same[1]) - chance) / ((len(same[0]) + len(same[1])) / 2 - chance)


def test_before_is_the_runs_own_start_and_the_same_every_time(run, folder, tiny_model):
    found = [json.loads(run("--before", "--json", "--out", "both.png", PICTURES[0])[1]) for _ in range(2)]
    assert found[0] == found[1] and Image.open(folder / "both.png").size == (2 * 448 + 12, 448 + 37)
    start = {name: tensor.clone() for name, tensor in tiny_model("any", seed=42).trainable_state_dict().items()}
    model = tiny_model("any", seed=0)
    model.load_checkpoint(str(folder / "run" / "model.pth"))
    image = BlipImageEvalProcessor(image_size=56)(Image.open(folder / PICTURES[0]).convert("RGB"))[None]
    after = [patch_tokens(ids[0], (4, 4), 1) for ids in source_maps(model, image, by_layer=True)]
    model.load_trainable_state_dict(start)
    before = [patch_tokens(ids[0], (4, 4), 1) for ids in source_maps(model, image, by_layer=True)]
    expected = [pair_agreement(*pair) for pair in zip(before, after, strict=True)]
    assert found[0]["agreement"] == pytest.approx(expected) and min(expected) < 1, "six large steps moved tokens"
    for state, maps in (("before_training", before), ("after_training", after)):
        sizes = {each["token"]: each["patches"] for each in found[0][state]["final_tokens"]}
        assert sizes == dict(zip(*np.unique(maps[-1], return_counts=True), strict=True))
    assert [each["tokens"] for each in found[0]["after_training"]["layers"]] == [13, 9, 5]


def test_a_folder_holds_pictures_page_and_figures(run, folder):
    (folder / "other").mkdir(exist_ok=True)
    Image.new("RGB", (30, 30), "red").save(folder / "other" / "0.png")
    code, out, _ = run("--out", "maps", "--layers", "--before", *PICTURES, "other/0.png")
    names = ["0.png", "1.png", "0_2.png", "token_maps.html", "token_maps.json"]
    assert (code, out.splitlines()) == (0, [f"maps/{name}" for name in names])
    assert Image.open(folder / "maps" / "0_2.png").size == (3 * 448 + 2 * 12, 2 * (40 + 448 + 37) + 12)
    figures = json.loads((folder / "maps" / "token_maps.json").read_text())
    assert figures["before training"] == "fresh weights by the seed 42" and figures["weights"] == "run/model.pth"
    assert [each["image"] for each in figures["files"]] == [*PICTURES, "other/0.png"]
    printed = [json.loads(line) for line in run("--json", "--before", "--out", "maps", *PICTURES)[1].splitlines()]
    assert printed == figures["files"][:2]
    html = (folder / "maps" / "token_maps.html").read_text()
    assert html.count("<canvas") == 4 and "fresh weights by the seed 42" in html


def test_a_page_and_a_clip_for_a_model_of_pictures(run, folder):
    assert run("--out", "pages/one.html", "clip.mp4", PICTURES[1])[:2] == (0, "pages/one.html\n")
    html = (folder / "pages" / "one.html").read_text()
    assert html.count("<canvas") == 5 and "every frame is mapped as a picture by itself" in html


def test_each_token_alone(run, folder):
    run("--out", "plain.png", PICTURES[0])
    run("--out", "tokens.png", "--tokens", PICTURES[0])
    assert Image.open(folder / "plain.png").size == (448, 448)
    width, height = Image.open(folder / "tokens.png").size
    assert height == 448 + 37 + 12 + 40 + 224 + 18 and width >= 448


def test_the_usual_places(run, folder):
    assert run(PICTURES[0])[1] == "token_map.png\n"
    assert run(*PICTURES)[1].splitlines()[0] == "token_maps/0.png"


def test_what_cannot_be_shown_is_told_and_the_others_go_on(run, folder):
    (folder / "text.png").write_text("no picture")
    code, out, _ = run("--out", "some.html", "text.png", PICTURES[0], "gone.png")
    assert code == 1
    assert out.splitlines() == [
        "some.html",
        "text.png: error: not a picture that PIL can read",
        "gone.png: error: no such file",
    ]
    code, out, _ = run("--json", "--out", "some.html", "gone.png", PICTURES[0])
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1 and lines[1] == {"image": "gone.png", "error": "no such file"} and "as_loaded" in lines[0]
    assert run("text.png") == (2, "", "error: text.png: not a picture that PIL can read\n")


def test_what_a_user_can_mend_is_said_before_a_model_is_loaded(run, folder, monkeypatch):
    monkeypatch.setattr("lavis_evlgen.loading.load_by_options", lambda *args: pytest.fail("loaded"))
    (folder / "file").write_text("")
    for argv, message in {
        ("gone.png", "gone.mp4"): "gone.png: no such file",
        ("file",): "file: the file is empty",
        ("--out", "x.xyz", *PICTURES): "--out x.xyz: cannot be written (.xyz is no format of pictures)",
        ("--out", "x.png", *PICTURES): "--out x.png: one picture for 2 files; name a page such as maps.html, or a",
    }.items():
        code, out, error = run(*argv)
        assert (code, out) == (2, "") and error.startswith(f"error: {message}") and error.count("\n") == 1


def test_a_place_that_cannot_be_written(run, folder):
    (folder / "taken").write_text("")
    for out in ("taken/x.png", "taken/x.html", "taken"):
        code, _, error = run("--out", out, PICTURES[0])
        assert code == 2 and f"error: --out {out}: cannot be written" in error


def test_the_documented_commands_are_understood():
    text = (Path(__file__).parents[2] / "docs" / "token_maps.md").read_text()
    lines = [
        shlex.split(line) for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    assert len(lines) == 3
    for words in lines:
        assert words[:4] == ["python", "-m", "lavis_evlgen.cli", "show"]
        args = cli.build_parser().parse_args(words[3:])
        check_out(args.out, len(args.images))
    options = set(re.findall(r"`(--[a-z-]+)", text))
    assert options == {"--out", "--layers", "--tokens", "--before", "--model", "--model-type", "--json"}
    assert all(f"`{name}`" in text for name in map_figures([np.zeros((1, 1))], 1))


def test_a_q_former_has_no_map(tiny_config, tmp_path, capsys):
    files = make_data(tmp_path, {"train": 2, "test": 1})
    config = {**tiny_config("any"), "connector": "qformer", "num_query_token": 3}
    train(tmp_path, config, files, max_iters=1)
    code = cli.main(["show", "--checkpoint", str(tmp_path / "run/model.pth"), str(tmp_path / "test/0.png")])
    assert code == 2 and "a QFormerConnector merges no tokens, so there is no map" in capsys.readouterr().err

"""The demo's own yaml on its own weights and pictures, a few steps long."""

import json
from pathlib import Path

import pytest

from lavis_evlgen import cli, launch
from lavis_evlgen.embedded.pictures import build

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_demo_trains_reports_and_captions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    build(Path("outputs/demo/data"), things=12, train=24, val=6, test=6, unseen=6, unseen_things=3)
    lengths = ["run.max_iters=4", "run.iters_per_inner_epoch=2", "run.health_freq=2", "run.max_len=4"]
    launch.start(["--cfg-path", str(ROOT / "projects/demo/train.yaml"), "--options", *lengths], evaluate=False)
    run = tmp_path / "outputs/demo"
    assert (run / "model.pth").stat().st_size < 50e6 and (run / "checkpoint_4.pth").stat().st_size < 150e6
    assert cli.main(["report", "outputs/demo"]) == 0
    report = json.loads((run / "report.json").read_text())
    asked = "cider exact_match named_right named_right_unseen held_out_loss shuffled_loss train_seconds"
    assert all(report[key] is not None for key in asked.split())
    assert (report["trainable_parameters"], report["tokens_in"], report["tokens_out"]) == (11338560, 257, 5)
    capsys.readouterr()
    picture = "outputs/demo/data/test/000000.png"
    assert cli.main(["caption", "--model", "evlgen", "--model-type", "demo", "--max-length", "4", picture]) == 0
    assert capsys.readouterr().out.startswith(f"{picture}: ")

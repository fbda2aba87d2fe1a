"""The VQA demo's own yaml on its own weights and questions, a few steps long."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lavis_evlgen import launch
from lavis_evlgen.embedded.easy_vqa import build

PROJECT = Path(__file__).parent.parent / "projects/demo/vqa.yaml"


@pytest.mark.slow
def test_demo_trains_and_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = build(Path("outputs/demo_vqa/data"), val=6, test=8)
    questions = (data / "train.jsonl").read_text().splitlines()[:24]
    (data / "train.jsonl").write_text("\n".join(questions))
    lengths = ["run.max_iters=4", "run.iters_per_inner_epoch=2", "run.health_freq=2", "run.batch_size_train=4"]
    metrics = launch.start(["--cfg-path", str(PROJECT), "--options", *lengths], evaluate=False)
    assert {split: scores["questions"] for split, scores in metrics.items()} == {
        "test": 8,
        "test_shuffled": 8,
        "val": 6,
    }
    assert all(scores["scoring"] == "match" for scores in metrics.values())
    run = tmp_path / "outputs/demo_vqa"
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all(0 < row["held_out_loss"] < 20 for row in log if "held_out_loss" in row)
    config = OmegaConf.load(PROJECT)
    answers = json.loads((run / "result/test_epochbest.json").read_text())
    assert len(answers) == 8 and config.run.prompt == "Question: {} Answer:"

    # the likeliest of the training part's answers instead of open-ended ones, from the weights that were written
    ranked = ["run.inference_method=rank", "run.answer_list=train", "run.evaluate=true", "run.test_splits=[test]"]
    launch.start(["--cfg-path", str(PROJECT), "--options", *lengths, *ranked], evaluate=True)
    chosen = json.loads((run / "result/test_epochbest.json").read_text())
    assert {row["answer"] for row in chosen} <= {json.loads(line)["answer"] for line in questions}

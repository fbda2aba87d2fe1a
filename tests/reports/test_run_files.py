"""Reading a run folder."""

import json

import pytest
from omegaconf import OmegaConf

from lavis_evlgen.reports.run_files import RunFiles


def folder(path, scores, log=(), **run):
    sections = {"model": {"arch": "tiny"}, "datasets": {"tiny": {}}, "run": {"batch_size_train": 4, **run}}
    OmegaConf.save(OmegaConf.create(sections), path / "config.yaml")
    (path / "evaluate.txt").write_text("".join(json.dumps(line) + "\n" for line in scores))
    (path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log) + '{"iters": 9, "lo')
    return RunFiles.read(path)


def test_the_last_evaluation_of_a_split_counts(tmp_path):
    run = folder(tmp_path, [{"val": {"epoch": 3, "CIDEr": 1.0}}, {"val": {"epoch": "best", "CIDEr": 2.0}}])
    assert run.scores == {"val": {"epoch": "best", "CIDEr": 2.0}}
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "val_epochbest.json").write_text('[{"image_id": "a", "caption": "an é"}]', "utf-8")
    assert run.texts("val") == {"a": "an é"}


@pytest.mark.parametrize(
    ("evaluated", "configured", "known", "unseen"),
    [
        (["val", "test", "test_unseen"], {"valid_splits": ["val"]}, "test", "test_unseen"),
        (["val", "holdout"], {"test_splits": ["holdout"], "valid_splits": ["val"]}, "holdout", None),
        (["val"], {"valid_splits": ["val"]}, "val", None),
        (["test_unseen"], {"test_splits": ["test_unseen"]}, "test_unseen", None),
        (["unseen_things", "minival"], {"test_splits": ["unseen_things"]}, "minival", "unseen_things"),
    ],
)
def test_splits_are_told_apart(tmp_path, evaluated, configured, known, unseen):
    run = folder(tmp_path, [{split: {"epoch": 1}} for split in evaluated], **configured)
    assert (run.known_split, run.unseen_split) == (known, unseen)


def test_time_is_that_of_the_steps_over_all_processes(tmp_path):
    log = [
        {"iters": 10, "loss": 2.0, "images_per_s": 8.0},
        {"iters": 10, "held_out_loss": 3.0},
        {"iters": 20, "loss": None, "images_per_s": 4.0},
        {"iters": 25, "loss": 1.0, "images_per_s": 16.0},
    ]
    run = folder(tmp_path, [{"val": {"epoch": 1}}], log, accum_grad_iters=2, world_size=2)
    assert run.images_per_step == 16
    assert run.train_seconds == 10 * 16 / 8 + 10 * 16 / 4 + 5 * 16 / 16
    assert run.curve("loss") == [(10, 2.0), (25, 1.0)] and run.steps == 25
    assert run.last("held_out_loss") == 3.0 and run.last("feature_seconds") is None


def test_a_run_without_a_log_has_no_times(tmp_path):
    run = folder(tmp_path, [{"val": {"epoch": 1}}])
    (tmp_path / "log.jsonl").unlink()
    assert RunFiles.read(tmp_path).log == []
    assert run.train_seconds is None and run.steps == 0

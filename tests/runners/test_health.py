"""The figures of a run's health: hand-computed where they are arithmetic, measured on tiny runs where they are not."""

import json
import logging
import math
import os
from typing import Any

import psutil
import pytest
import torch
from lavis.common.registry import registry
from tiny_captions import write_pictures
from tiny_runs import losses, rows, write_config

from lavis_evlgen.runners import run_events
from lavis_evlgen.runners.health import prompt_differences
from lavis_evlgen.runners.progress import RunLog
from lavis_evlgen.runners.run_events import MOST_ALIKE, warnings_noted
from lavis_evlgen.runners.training import Training
from lavis_evlgen.runners.usage import TokenCounter, memory


def diversity(prompts: torch.Tensor) -> float:
    differences, pairs = prompt_differences(prompts)
    return differences / pairs


def test_diversity_is_one_minus_the_mean_cosine_of_pairs():
    prompts = torch.randn(5, 3, 7, generator=torch.Generator().manual_seed(0)) + 0.5
    cosines = [
        torch.cosine_similarity(prompts[i, place], prompts[j, place], dim=0)
        for i in range(5)
        for j in range(5)
        for place in range(3)
        if i != j
    ]
    assert prompt_differences(prompts)[1] == 20
    assert diversity(prompts) == pytest.approx(1 - float(torch.stack(cosines).mean()), abs=1e-6)


def test_diversity_shows_collapse():
    one = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(1))
    assert diversity(one.repeat(6, 1, 1)) == pytest.approx(0.0, abs=1e-6)
    assert diversity(torch.zeros(3, 4, 8)) == 0.0
    assert diversity(torch.eye(4)[:, None, :]) == pytest.approx(1.0)  # four pictures, one token, nothing in common
    assert diversity(one * torch.tensor([1.0, 5.0, 0.1])[:, None, None]) == pytest.approx(0.0, abs=1e-6)  # length only
    assert prompt_differences(one) == (0.0, 0)


def test_language_model_counts_what_it_reads(tiny_model, batch):
    model = tiny_model("any")
    language, count = model.language, TokenCounter(model, torch.device("cpu"))
    with count.counting():
        model(batch)
    texts = [language.encode_text(text, "") for text in batch["text_input"]]
    ahead = 1 + model.connector.num_tokens_out  # bos and soft prompt
    tokens = sum(ahead + len(context) + len(target) for context, target in texts)
    assert model.tokens_read == tokens > 3 * ahead
    model(batch)  # not of a training step
    model.generate(batch, max_length=3, num_beams=1)
    assert model.tokens_read == 2 * tokens
    assert (
        count.per_second(2.0) == {"tokens_per_s": round(tokens / 2, 1)} and count.per_second(2.0)["tokens_per_s"] == 0
    )
    assert TokenCounter(torch.nn.Linear(1, 1), torch.device("cpu")).per_second(1.0) == {}


def test_memory_is_that_of_this_process():
    found = memory(torch.device("cpu"))
    assert list(found) == ["host_memory_gib"]
    assert found["host_memory_gib"] == pytest.approx(psutil.Process(os.getpid()).memory_info().rss / 2**30, rel=0.2)


def test_records_of_a_run(config, train, tmp_path):
    train(config(valid_splits=["val"], health_freq=6, max_iters=8, iters_per_inner_epoch=4, model={"nan_at": [5]}))
    for row in rows(tmp_path / "out"):
        assert row["host_memory_gib"] > 0.05 and row["bad_samples"] == 0 and row["nan_steps"] == (row["iters"] > 5)
        assert "tokens_per_s" not in row  # this model has no language model
    (health,) = rows(tmp_path / "out", "gap")
    assert "prompt_diversity" not in health
    states = [(row["iters"], row["state"], row.get("what")) for row in rows(tmp_path / "out", "state")]
    assert states == [
        (0, "started", None),
        (4, "evaluating", "val"),
        (8, "evaluating", "val"),
        (8, "finished", None),
    ]
    start = rows(tmp_path / "out", "state")[0]
    assert (start["max_iters"], start["processes"], start["pid"]) == (8, 1, os.getpid())
    (warning,) = rows(tmp_path / "out", "warning")
    assert warning["iters"] == 6 and warning["warning"].startswith("step 6 was skipped: its loss or gradient was not")


def test_the_reason_of_an_end_is_noted(config, train, tmp_path, monkeypatch):
    def fail(self: Training, *args: Any) -> None:
        raise OSError("the disk\nis gone")

    monkeypatch.setattr(Training, "_check_health", fail)
    with pytest.raises(OSError, match="gone"):
        train(config())
    (*_, end) = rows(tmp_path / "out", "state")
    assert (end["iters"], end["state"], end["why"]) == (1, "stopped", "OSError: the disk")


def test_a_warning_is_not_said_again_after_a_resume(config, train, tmp_path, monkeypatch, caplog):
    blind = {"init_lr": 1e-9, "warmup_lr": 1e-9, "model": {"width": 1}}
    argv = config(valid_splits=["val"], health_freq=1, max_iters=12, **blind)
    with monkeypatch.context() as patch:
        check = Training._check_health

        def die(self: Training) -> None:
            check(self)
            if self.iters == 7:
                raise RuntimeError("killed")

        patch.setattr(Training, "_check_health", die)
        with pytest.raises(RuntimeError):
            train(argv)
    assert caplog.text.count("without looking") == 1
    train(argv)
    assert caplog.text.count("without looking") == 1
    said = [row for row in rows(tmp_path / "out", "warning") if "without looking" in row["warning"]]
    assert [row["iters"] for row in said] == [4]  # a warm-up of three steps, then two checks
    state = torch.load(tmp_path / "out" / "checkpoint_12.pth", weights_only=True)["verdict"]
    assert state["signs"] == ["ignored"] and math.isclose(
        state["figures"]["gap"], rows(tmp_path / "out", "gap")[-1]["gap"]
    )


def test_validation_after_the_checkpoint_counts_when_resumed(config, train, tmp_path, monkeypatch):
    """A killed run's checkpoint of step 4 was written before that step's validation, which is in the log."""
    task = registry.get_task_class("tiny_task")
    scores = task.after_evaluation
    monkeypatch.setattr(task, "after_evaluation", lambda *a, **k: {**scores(*a, **k), "repeated_captions": 1.0})
    argv = config(valid_splits=["val"])
    with monkeypatch.context() as patch:
        step = Training._train_step

        def die(self: Training, *args: Any) -> Any:
            if self.iters == 5:
                raise RuntimeError("killed")
            return step(self, *args)

        patch.setattr(Training, "_train_step", die)
        with pytest.raises(RuntimeError):
            train(argv)
    train(argv)
    assert [row["iters"] for row in rows(tmp_path / "out", "warning")] == [8]


def test_health_and_validation_leave_training_as_it_is(config, train, tmp_path):
    train(config("plain"))
    train(config("watched", valid_splits=["val"], health_freq=1))
    assert losses(tmp_path / "plain") == losses(tmp_path / "watched")


def test_warnings_of_this_package_are_noted_and_of_one_kind_only_some(tmp_path, monkeypatch):
    log = RunLog(tmp_path)
    monkeypatch.setattr(run_events, "PACKAGE", run_events.Path(__file__).parent)
    with warnings_noted(log, lambda: 7):
        logging.info("nothing of note")
        for number in range(MOST_ALIKE + 5):
            logging.warning("picture %d is bad", number)
        logging.error("an error")
    logging.warning("after it")
    monkeypatch.setattr(run_events, "PACKAGE", tmp_path)
    with warnings_noted(log, lambda: 8):
        logging.warning("of another package")
    found = log.read()
    assert [row["warning"] for row in found] == [*(f"picture {n} is bad" for n in range(MOST_ALIKE)), "an error"]
    assert {row["iters"] for row in found} == {7}
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["time"] > 1.7e9


@pytest.fixture
def captioning(tmp_path, tiny_config):
    """Writes the configuration of a tiny EVLGen on coloured pictures; the launcher arguments for it."""
    data = write_pictures(tmp_path, train=12, val=4)
    model = {**tiny_config("any"), "arch": "evlgen", "model_type": "custom"}
    defaults = {
        "max_iters": 2,
        "max_len": 5,
        "num_beams": 1,
        "valid_splits": ["val"],
        "health_freq": 2,
        "health_batches": 2,
    }

    def write(out: str = "out", **run: Any) -> list[str]:
        return write_config(tmp_path, out, model, data, task="captioning", **{**defaults, **run})

    return write


def test_every_figure_of_a_captioning_run(captioning, train, tmp_path, monkeypatch):
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    models = []
    step = Training._train_step
    monkeypatch.setattr(Training, "_train_step", lambda self, *a: (models.append(self.runner.model), step(self, *a))[1])
    train(captioning(tensorboard=True))
    ahead = 1 + models[0].connector.num_tokens_out  # bos and soft prompt; then three words and the end
    for row in rows(tmp_path / "out"):
        rounding = 0.05 * row["seconds"]  # tokens_per_s has one digit behind the point
        assert row["tokens_per_s"] * row["seconds"] == pytest.approx(4 * (ahead + 4), rel=0.01, abs=rounding)
        assert {"grad_norm", "images_per_s", "data_wait", "host_memory_gib"} <= row.keys()
    (health,) = rows(tmp_path / "out", "gap")
    assert 0 < health["prompt_diversity"] < 1.1
    (scores,) = rows(tmp_path / "out", "split")
    captions = [row["caption"] for row in json.loads((tmp_path / "out/result/val_epoch2.json").read_text())]
    assert scores["repeated_captions"] == sum(captions.count(text) > 1 for text in captions) / 4
    assert scores["repeated_references"] == 0.0 and 0 <= scores["repeated_ngrams"] < 1
    found = board.EventAccumulator(str(tmp_path / "out")).Reload()
    for tag, value in (
        ("train/tokens_per_s", row["tokens_per_s"]),
        ("health/prompt_diversity", health["prompt_diversity"]),
    ):
        assert found.Scalars(tag)[-1].value == pytest.approx(value, rel=1e-5)
    assert "val/repeated_captions" in found.Tags()["scalars"]
    assert not any("pid" in tag or "time" in tag for tag in found.Tags()["scalars"])


def test_figures_are_those_of_all_processes(captioning, run_processes, train, tmp_path):
    """Two processes share the batches of training, and both look at all held-out pictures."""
    train(captioning("one", use_dist_eval_sampler=False))
    argv = captioning("two", use_dist_eval_sampler=False, batch_size_train=2)
    assert run_processes(argv) == [0, 0], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
    steps = list(zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True))
    assert len(steps) == 2
    for step in steps:
        tokens = [row["tokens_per_s"] * row["seconds"] for row in step]
        rounding = 0.05 * sum(row["seconds"] for row in step)
        assert tokens[1] == pytest.approx(tokens[0], rel=0.02, abs=rounding)
    one, two = (rows(tmp_path / name, "gap")[0] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-3, abs=1e-4)
    assert [row["processes"] for row in rows(tmp_path / "two", "processes")] == [2]

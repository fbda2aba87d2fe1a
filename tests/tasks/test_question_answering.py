"""The VQA task: answers of all ranks, their files, submissions and scores, and the questions that it trains on."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from lavis_evlgen.datasets.question_answer import QuestionAnswerDataset, QuestionEvalDataset
from lavis_evlgen.datasets.questions import read_questions
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.tasks.question_answering import QuestionAnsweringTask, question_prompt

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class ColourModel(nn.Module):
    """Answers with the picture's colour, but takes blue for green; it has LAVIS's arguments of blip_vqa."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.calls: list[dict] = []

    def forward(self, samples):
        self.calls.append(dict(samples))
        return {"loss": self.bias.sum()}

    def predict_answers(self, samples, num_beams=3, inference_method="rank", max_len=10, min_len=1,
                        num_ans_candidates=128, answer_list=None, **kwargs):  # fmt: skip
        names = {colour: name for name, colour in COLOURS.items()} | {COLOURS["blue"]: "green"}
        answers = [names[tuple((image[:, 0, 0] * 255).int().tolist())] for image in samples["image"]]
        self.calls.append({"answer_list": answer_list, "lemmatize": samples["apply_lemmatizer"], **kwargs})
        return [f"The {answer}." for answer in answers]


def rows(*names: str, answered: bool = True) -> list[dict]:
    return [
        {"image": f"{name}.png", "question": "what colour?", "question_id": str(100 + number),
         **({"answer": [name] * 10, "answer_type": name[0]} if answered else {})}
        for number, name in enumerate(names)
    ]  # fmt: skip


def dataset(folder, records, server="vqa", scoring="auto", cls=QuestionEvalDataset):
    for name, colour in COLOURS.items():
        Image.new("RGB", (4, 4), colour).save(folder / f"{name}.png")
    (folder / "rows.json").write_text(json.dumps(records))
    data = cls(to_tensor, str, str(folder), read_questions([folder / "rows.json"])[0])
    data.server, data.scoring = server, scoring
    return data


def setup(**run_cfg) -> QuestionAnsweringTask:
    return QuestionAnsweringTask.setup_task(SimpleNamespace(run_cfg=OmegaConf.create(run_cfg)))


def loader(data) -> DataLoader:
    return DataLoader(data, batch_size=2, collate_fn=data.collater)


def run(task, model, data, split="val", epoch=3) -> dict:
    results = task.evaluation(model, loader(data))
    return task.after_evaluation(results, split, epoch, dataset=data)


def written(outputs, name: str):
    return json.loads((outputs / "result" / f"{name}.json").read_text())


def test_answers_are_scored_and_written(tmp_path, outputs):
    data = dataset(tmp_path, rows("red", "green", "blue", "gone"))
    scores = run(setup(), ColourModel(), data)
    assert scores == {
        "accuracy": pytest.approx(200 / 3), "agg_metrics": pytest.approx(200 / 3), "questions": 3, "scoring": "vqa",
        "skipped": 1, "per_answer_type": {"b": 0.0, "g": 100.0, "r": 100.0},
    }  # fmt: skip
    answers = written(outputs, "val_epoch3")
    assert answers[0] == {"question_id": "100", "image_id": "red", "question": "what colour?", "answer": "The red."}
    assert [row["question_id"] for row in answers] == ["100", "101", "102"]
    assert "gone.png: no such file" in written(outputs, "val_epoch3_skipped")[0]
    # the server wants an answer to every question
    assert written(outputs, "val_epoch3_submission") == [
        {"question_id": 100, "answer": "The red."}, {"question_id": 101, "answer": "The green."},
        {"question_id": 102, "answer": "The green."}, {"question_id": 103, "answer": ""},
    ]  # fmt: skip
    assert json.loads((outputs / "evaluate.txt").read_text())["val"] == {"epoch": 3, **scores}


def test_submission_forms(tmp_path, outputs):
    run(setup(), ColourModel(), dataset(tmp_path, rows("red"), server="gqa", scoring="gqa"))
    assert written(outputs, "val_epoch3_submission") == [{"questionId": "100", "prediction": "The red."}]
    named = [{**rows("red")[0], "question_id": "val-7"}]
    run(setup(), ColourModel(), dataset(tmp_path, named), split="named")
    assert written(outputs, "named_epoch3_submission") == [{"question_id": "val-7", "answer": "The red."}]
    run(setup(), ColourModel(), dataset(tmp_path, rows("red"), server=""), split="own")
    assert not (outputs / "result" / "own_epoch3_submission.json").exists()


def test_a_split_without_answers(tmp_path, outputs, caplog):
    caplog.set_level(logging.WARNING)
    scores = run(setup(), ColourModel(), dataset(tmp_path, rows("red", "blue", answered=False)), "test")
    assert scores == {"agg_metrics": 0.0, "note": "no ground truth", "skipped": 0}
    assert "the split test has no ground truth" in caplog.text
    assert [row["question_id"] for row in written(outputs, "test_epoch3_submission")] == [100, 101]
    nothing = run(setup(), ColourModel(), dataset(tmp_path, rows("gone")), "gone")
    assert nothing == {"agg_metrics": 0.0, "note": "no readable pictures", "skipped": 1}
    assert run(setup(report_metric=False), ColourModel(), dataset(tmp_path, rows("red"))) == {
        "agg_metrics": 0.0, "skipped": 0,
    }  # fmt: skip


def test_some_questions_without_answers_are_not_scored(tmp_path, outputs):
    data = dataset(tmp_path, [*rows("red"), {**rows("blue", answered=False)[0], "question_id": "9"}])
    assert run(setup(), ColourModel(), data)["questions"] == 1
    (tmp_path / "red.png").unlink()
    assert run(setup(), ColourModel(), data) == {"agg_metrics": 0.0, "note": "no ground truth", "skipped": 1}


def test_numbers_as_ids(tmp_path):
    data, model = dataset(tmp_path, rows("red")), ColourModel()
    batch = {**data.collater([data[0]]), "question_id": torch.tensor([7]), "image_id": torch.tensor([9])}
    (row,) = setup().valid_step(model, batch)
    assert (row["question_id"], row["image_id"]) == ("7", "9")


def test_generation_follows_the_run_section(tmp_path):
    data, model = dataset(tmp_path, rows("red")), ColourModel()
    task = setup(prompt="Question: {} Short answer:", length_penalty=-1, inference_method="generate", lemmatize=True)
    assert [row["answer"] for row in task.evaluation(model, loader(data))] == ["The red."]
    assert model.calls == [
        {"answer_list": None, "lemmatize": True, "prompt": "Question: {} Short answer:", "length_penalty": -1}
    ]
    data.lemmatize = True
    for lemmatize, expected in ((None, True), (False, False)):
        setup(lemmatize=lemmatize).evaluation(model, loader(data))
        assert model.calls[-1] == {"answer_list": None, "lemmatize": expected, "prompt": ""}


def test_lists_to_rank(tmp_path):
    data, model = dataset(tmp_path, rows("red")), ColourModel()
    with pytest.raises(ConfigError, match=r"rank needs answers to choose from; set run\.answer_list"):
        setup(inference_method="rank").evaluation(model, loader(data))
    data.candidates = lambda: ["pink", "red"]
    setup(inference_method="rank").evaluation(model, loader(data))
    (tmp_path / "answers.txt").write_text("teal\nred\n")
    setup(inference_method="rank", answer_list=str(tmp_path / "answers.txt")).evaluation(model, loader(data))
    setup(inference_method="rank", answer_list=["a", "b"]).evaluation(model, loader(data))
    setup(answer_list=["a", "b"]).evaluation(model, loader(data))
    assert [call["answer_list"] for call in model.calls] == [["pink", "red"], ["teal", "red"], ["a", "b"], None]


def test_training_answers_to_rank(tmp_path):
    records = [*rows("red", "blue"), {**rows("blue")[0], "question_id": "7"}]
    (tmp_path / "pictures").mkdir()
    dataset(tmp_path / "pictures", records)
    config = {
        "visual_question_answer": {
            "data_type": "images",
            "images": str(tmp_path / "pictures"),
            "annotations": {"train": str(tmp_path / "pictures/rows.json")},
            "vis_processor": {"train": {"name": "blip_image_eval", "image_size": 4}},
            "text_processor": {"train": {"name": "blip_question"}},
        }
    }
    task = setup(inference_method="rank", answer_list="train")
    run_cfg = OmegaConf.create({"train_splits": ["train"], "output_dir": "x", "max_iters": 1})
    task.build_datasets(SimpleNamespace(datasets_cfg=OmegaConf.create(config), run_cfg=run_cfg))
    assert task.answer_list == ["blue", "red"]
    with pytest.raises(DataError, match="train finds no answers"):
        setup(inference_method="rank", answer_list="train").build_datasets(
            SimpleNamespace(datasets_cfg=OmegaConf.create(config), run_cfg={**run_cfg, "train_splits": ["other"]})
        )


def test_training_asks_by_the_same_prompt(tmp_path):
    data, model = dataset(tmp_path, rows("red", "gone"), cls=QuestionAnswerDataset), ColourModel()
    batch = {**data.collater([data[0], data[1]]), "epoch": 0, "iters": 1}
    setup(prompt="Question: {} Short answer:").train_step(model, batch)
    assert model.calls[-1]["text_input"] == ["Question: what colour? Short answer:"]
    assert model.calls[-1]["text_output"] == ["red"] and batch["text_input"] == ["what colour?"]
    setup().train_step(model, batch)
    assert model.calls[-1]["text_input"] == ["what colour?"]
    with pytest.raises(DataError, match="no sample of a batch could be read"):
        setup(prompt="{}").train_step(model, {**data.collater([data[1]]), "epoch": 0, "iters": 1})


@pytest.mark.parametrize(
    ("run_cfg", "message"),
    [
        ({"prompt": "Short answer:"}, r"run\.prompt: 'Short answer:' must hold \{\} once"),
        ({"prompt": "{} or {}?"}, "must hold"),
        ({"prompt": "{question} {}"}, "must hold"),
        ({"inference_method": "ranked"}, r"inference_method: 'ranked' is unknown; did you mean 'rank'"),
        ({"num_beams": 0}, "num_beams=0"),
    ],
)
def test_wrong_run_keys_are_found_before_training(run_cfg, message):
    with pytest.raises(ConfigError, match=message):
        setup(**run_cfg)


def test_it_takes_the_place_of_laviss():
    assert registry.get_task_class("vqa") is registry.get_task_class("gqa") is QuestionAnsweringTask
    with pytest.raises(ConfigError, match="Linear has no predict_answers"):
        setup().valid_step(nn.Linear(1, 1), {})


def _evaluate_on_rank(rank: int, whole, folder) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    own = torch.utils.data.Subset(whole, [[0, 2, 3], [1, 2, 3]][rank])
    task = setup()
    task.before_evaluation(ColourModel(), whole)
    results = task.evaluation(ColourModel(), DataLoader(own, batch_size=2, collate_fn=whole.collater))
    scores = task.after_evaluation(results, "val", 0, dataset=whole)
    (folder / f"scores{rank}.json").write_text(json.dumps(scores))
    dist.destroy_process_group()


def test_two_ranks_join_their_answers(tmp_path, outputs):
    whole = dataset(tmp_path, rows("red", "green", "blue", "gone"))
    mp.start_processes(_evaluate_on_rank, args=(whole, tmp_path), nprocs=2, start_method="fork")
    scores = [json.loads((tmp_path / f"scores{rank}.json").read_text()) for rank in range(2)]
    assert scores[0] == scores[1]
    assert scores[0]["questions"] == 3 and scores[0]["skipped"] == 1
    assert scores[0]["accuracy"] == pytest.approx(200 / 3)
    assert sorted(row["question_id"] for row in written(outputs, "val_epoch0")) == ["100", "101", "102"]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"task": "evlgen_vqa", "prompt": "Q: {} A:"}, "Q: {} A:"),
        ({"task": "vqa"}, "{}"),
        ({"task": "captioning", "prompt": "a photo of"}, None),
        ({}, None),
        # of a checkpoint that anybody may have written
        ({"task": ["evlgen_vqa"]}, None),
        ({"task": "gone"}, None),
        ({"task": "evlgen_vqa", "prompt": "{0.__class__}"}, None),
        ({"task": "evlgen_vqa", "prompt": 3}, None),
        ("text", None),
    ],
)
def test_how_a_run_asks(run, expected):
    assert question_prompt(OmegaConf.create({"run": run})) == expected

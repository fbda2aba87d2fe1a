import json
import logging
import os
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

from lavis_evlgen.datasets.image_text import ImageCaptionEvalDataset
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.tasks.captioning import CaptioningTask

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
SENTENCE = "a picture that is {} all over"


class ColourModel(nn.Module):
    """Names the picture's colour, but takes blue for black; takes LAVIS's arguments of blip_caption."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.calls: list[dict] = []

    def forward(self, samples):
        return {"loss": samples["image"].mean() + self.bias.sum()}

    def generate(self, samples, use_nucleus_sampling=False, num_beams=3, max_length=30, min_length=10, top_p=0.9):
        self.calls.append(
            {"num_beams": num_beams, "max_length": max_length, "min_length": min_length, "top_p": top_p,
             "prompt": samples.get("prompt")}
        )  # fmt: skip
        names = {colour: name for name, colour in COLOURS.items()} | {COLOURS["blue"]: "black"}
        colours = [tuple((image[:, 0, 0] * 255).int().tolist()) for image in samples["image"]]
        return [SENTENCE.format(names[colour]) for colour in colours]


def rows(*names: str) -> list[dict]:
    return [
        {"image": f"{n}.png", "image_id": f"id {n}", "caption": [SENTENCE.format(n), f"all {n}"], "things": [n]}
        for n in names
    ]


def dataset(folder, records) -> ImageCaptionEvalDataset:
    for name, colour in COLOURS.items():
        Image.new("RGB", (4, 4), colour).save(folder / f"{name}.png")
    (folder / "ann.json").write_text(json.dumps(records))
    return ImageCaptionEvalDataset(to_tensor, str, str(folder), [str(folder / "ann.json")])


def loader(data) -> DataLoader:
    return DataLoader(data, batch_size=2, collate_fn=data.collater)


def run(task, model, data, split="val", epoch=3):
    task.before_evaluation(model, data)
    return task.after_evaluation(task.evaluation(model, loader(data)), split_name=split, epoch=epoch)


def test_it_takes_the_place_of_lavis_captioning():
    assert registry.get_task_class("captioning") is registry.get_task_class("evlgen_captioning") is CaptioningTask


def test_captions_are_scored_against_the_data_sets_own_references(tmp_path, outputs):
    scores = run(CaptioningTask(), ColourModel(), dataset(tmp_path, rows(*COLOURS)))
    assert scores["exact_match"] == scores["named_right"] == 0.75
    assert scores["captions"] == 4 and scores["skipped"] == 0
    assert scores["agg_metrics"] == scores["CIDEr"] + scores["Bleu_4"] > 2
    written = json.loads((outputs / "result" / "val_epoch3.json").read_text())
    assert {row["image_id"]: row["caption"] for row in written}["id red"] == SENTENCE.format("red")
    (line,) = (outputs / "evaluate.txt").read_text().splitlines()
    assert json.loads(line)["val"] == {"epoch": 3, **scores}


def test_several_splits_keep_their_references_apart(tmp_path, outputs):
    (tmp_path / "other").mkdir()
    task, model = CaptioningTask(metrics_tokenizer="java_free"), ColourModel()
    first, second = dataset(tmp_path, rows("red", "green")), dataset(tmp_path / "other", rows("blue", "black"))
    assert run(task, model, first)["exact_match"] == 1.0
    assert run(task, model, second, split="test_unseen", epoch="best")["exact_match"] == 0.5
    assert (outputs / "result" / "test_unseen_epochbest.json").exists()
    assert len((outputs / "evaluate.txt").read_text().splitlines()) == 2
    assert task.after_evaluation([{"image_id": "id red", "caption": "all red"}], "val", 4, dataset=first)[
        "exact_match"
    ] == 1.0  # fmt: skip


def test_unreadable_pictures_are_left_out_counted_and_listed(tmp_path, outputs, caplog):
    data = dataset(tmp_path, [*rows("red", "blue"), *rows("gone", "lost")])
    with caplog.at_level(logging.WARNING):
        scores = run(CaptioningTask(), ColourModel(), data)
    assert (scores["captions"], scores["skipped"], scores["exact_match"]) == (2, 2, 0.5)
    assert "2 pictures could not be read" in caplog.text
    skipped = json.loads((outputs / "result" / "val_epoch3_skipped.json").read_text())
    assert skipped == [f"{tmp_path / name}.png: no such file" for name in ("gone", "lost")]


def test_without_references_nothing_is_scored(tmp_path, outputs, caplog):
    scores = run(CaptioningTask(), ColourModel(), dataset(tmp_path, [{"image": "red.png"}]))
    assert scores == {"agg_metrics": 0.0, "note": "no reference captions", "skipped": 0}
    assert "no reference captions: nothing is scored" in caplog.text
    assert json.loads((outputs / "result" / "val_epoch3.json").read_text())[0]["image_id"] == "red"


def test_report_metric_false_only_writes_the_captions(tmp_path, outputs):
    scores = run(CaptioningTask(report_metric=False), ColourModel(), dataset(tmp_path, rows("red")))
    assert scores == {"agg_metrics": 0.0, "skipped": 0}
    assert (outputs / "result" / "val_epoch3.json").exists()


def setup(**run_cfg) -> CaptioningTask:
    return CaptioningTask.setup_task(SimpleNamespace(run_cfg=OmegaConf.create(run_cfg)))


def test_generation_follows_the_run_section(tmp_path, outputs):
    task = setup(task="captioning", num_beams=2, max_len=9, min_len=3, evaluate=True, top_p=0.5, prompt="a photo of")
    model, data = ColourModel(), dataset(tmp_path, rows("red"))
    samples = data.collater([data[0]])
    keys = set(samples)
    task.valid_step(model, samples)
    assert model.calls == [{"num_beams": 2, "max_length": 9, "min_length": 3, "top_p": 0.5, "prompt": "a photo of"}]
    assert set(samples) == keys
    setup(num_beams=1, max_len=9, min_len=3, evaluate=False).valid_step(model, samples)
    assert model.calls[-1]["top_p"] == 0.9 and model.calls[-1]["prompt"] is None


def test_metrics_and_attributes_of_the_run_section(tmp_path, outputs):
    records = [{**row, "mood": "red"} for row in rows("red", "black")]
    task = setup(evaluate=True, metrics=["rouge_l"], attributes=["mood"], metrics_tokenizer="java_free")
    scores = run(task, ColourModel(), dataset(tmp_path, records))
    assert scores["mood_right"] == 0.5 and scores["tokenizer"] == "treebank (no Java)"
    assert {"CIDEr", "Bleu_4", "ROUGE_L"} <= set(scores) and "exact_match" not in scores
    assert set(setup(evaluate=True, metrics="exact_match").metrics) == {"cider", "bleu", "exact_match"}


@pytest.mark.parametrize(
    ("run_cfg", "message"),
    [
        ({"num_beams": 0}, "num_beams=0"),
        ({"min_len": 9, "max_len": 8}, "max_len=8, min_len=9"),
        ({"metrics": ["cidr"]}, "'cidr' is unknown; did you mean 'cider'"),
        ({"metrics_tokenizer": "spacy"}, "'spacy' is unknown"),
    ],
)
def test_wrong_run_keys_are_found_before_training(run_cfg, message):
    with pytest.raises(ConfigError, match=message):
        setup(**run_cfg)


def test_an_option_that_the_model_lacks_is_named(tmp_path):
    data = dataset(tmp_path, rows("red"))
    with pytest.raises(ConfigError, match=r"run\.length_penalty: ColourModel\.generate\(\) has no such option"):
        setup(length_penalty=2.0).valid_step(ColourModel(), data.collater([data[0]]))


def test_training_on_a_batch_of_nothing_but_bad_samples(tmp_path):
    data, model = dataset(tmp_path, rows("red", "gone")), ColourModel()
    assert CaptioningTask().train_step(model, data.collater([data[0], data[1]])).item() == pytest.approx(1 / 3)
    with pytest.raises(DataError, match=r"no sample of a batch could be read, e\.g\. .*gone\.png: no such file"):
        CaptioningTask().train_step(model, {**data.collater([data[1]]), "epoch": 0, "iters": 1})


def _evaluate_on_rank(rank: int, folder, port_file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{port_file}", rank=rank, world_size=2)
    records = [rows("red", "green", "gone"), rows("green", "blue", "gone")][rank]
    own = folder / str(rank)
    own.mkdir()
    data, task = dataset(own, records), CaptioningTask(metrics_tokenizer="java_free")
    whole = dataset(own, rows("red", "green", "blue", "gone"))
    results = task.evaluation(ColourModel(), loader(data))
    scores = task.after_evaluation(results, "val", 0, dataset=whole)
    (own / "scores.json").write_text(json.dumps(scores))
    dist.destroy_process_group()


def test_two_ranks_join_their_captions(tmp_path, outputs):
    mp.start_processes(_evaluate_on_rank, args=(tmp_path, os.fspath(tmp_path / "store")), nprocs=2, start_method="fork")
    scores = [json.loads((tmp_path / str(rank) / "scores.json").read_text()) for rank in range(2)]
    assert scores[0] == scores[1]
    assert scores[0]["captions"] == 3 and scores[0]["skipped"] == 2
    assert scores[0]["exact_match"] == pytest.approx(2 / 3)
    written = json.loads((outputs / "result" / "val_epoch0.json").read_text())
    assert sorted(row["image_id"] for row in written) == ["id blue", "id green", "id red"]

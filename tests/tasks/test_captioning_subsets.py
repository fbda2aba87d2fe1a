"""Scores by kind of picture, and files for the servers, on a miniature of nocaps and of COCO."""

import json
import logging

import pytest
import released_files
import torch
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from released_files import COLOURS, NOCAPS, captions
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from lavis_evlgen.datasets.caption_builders import CocoCaptionEvalDataset, NocapsEvalDataset
from lavis_evlgen.datasets.image_text import ImageCaptionEvalDataset
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.metrics import tokenizers
from lavis_evlgen.metrics.tokenizers import JAVA_FREE, tokenize
from lavis_evlgen.tasks.captioning import CaptioningTask

SUBSETS = {"in-domain": ["0"], "near-domain": ["1", "2"], "out-domain": ["3"]}


class Painter(nn.Module):
    """Says the picture's colour, but takes blue for red; white makes it speechless."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def generate(self, samples, num_beams=1, max_length=30, min_length=1):
        return [self.say(image) for image in samples["image"]]

    @staticmethod
    def say(image) -> str:
        colours = {tuple(round(value / 255) for value in colour): name for name, colour in COLOURS.items()}
        name = colours[tuple(image[:, 4, 4].round().int().tolist())]
        return {"white": "an empty sheet of paper", "blue": captions("red")[0]}.get(name, captions(name)[0])


SAID = {"0": captions("red")[0], "1": captions("green")[0], "2": captions("red")[0], "3": "an empty sheet of paper"}


@pytest.fixture
def results(outputs):
    return outputs / "result"


@pytest.fixture
def nocaps(tmp_path):
    files = released_files.nocaps(tmp_path)
    return NocapsEvalDataset(to_tensor, str, str(files["images"]), [str(files["val"])])


def run(data, split="val", epoch=2, **options):
    task, model = CaptioningTask(metrics_tokenizer="java_free", **options), Painter()
    task.before_evaluation(model, data)
    loader = DataLoader(data, batch_size=3, collate_fn=data.collater)
    return task.after_evaluation(task.evaluation(model, loader), split_name=split, epoch=epoch)


def by_pycocoevalcap(ids) -> dict[str, float]:
    """CIDEr, BLEU-4 and ROUGE-L of the Painter's captions of some pictures, by pycocoevalcap alone."""
    references = tokenize({key: 2 * captions(NOCAPS[int(key)][0]) for key in ids}, JAVA_FREE)
    made = tokenize({key: [SAID[key]] for key in ids}, JAVA_FREE)
    return {
        "CIDEr": Cider().compute_score(references, made)[0],
        "Bleu_4": Bleu(4).compute_score(references, made, verbose=0)[0][3],
        "ROUGE_L": Rouge().compute_score(references, made)[0],
    }


def test_nocaps_is_scored_in_near_out_and_entire(nocaps, results):
    scores = run(nocaps)
    assert list(scores["subsets"]) == ["in-domain", "near-domain", "out-domain", "entire"]
    for name, ids in {**SUBSETS, "entire": list(SAID)}.items():
        found = scores["subsets"][name]
        assert found["captions"] == len(ids)
        for metric, expected in by_pycocoevalcap(ids).items():
            assert found[metric] == pytest.approx(expected, abs=1e-9), (name, metric)
    assert [scores["subsets"][name]["exact_match"] for name in scores["subsets"]] == [1.0, 0.5, 0.0, 0.5]
    assert scores["subsets"]["entire"]["CIDEr"] == scores["CIDEr"] > 0
    assert "tokenizer" not in scores["subsets"]["entire"] and scores["tokenizer"] == JAVA_FREE
    (line,) = (results.parent / "evaluate.txt").read_text().splitlines()
    assert json.loads(line)["val"]["subsets"] == scores["subsets"]


def test_any_key_of_the_records_makes_subsets(tmp_path, results):
    files = released_files.nocaps(tmp_path)
    rows = [
        {"image": f"val/{path.name}", "image_id": str(n), "caption": captions(colour), "size": n // 2, "tags": tags}
        for n, (path, (colour, _), tags) in enumerate(
            zip(
                sorted((files["images"] / "val").iterdir()), NOCAPS.values(), (["a"], ["a", "b"], [], None), strict=True
            )
        )
    ]
    path = released_files.write(tmp_path / "mine.json", rows)
    data = ImageCaptionEvalDataset(to_tensor, str, str(files["images"]), [str(path)])
    assert "subsets" not in run(data)
    by_size = run(data, subset="size")["subsets"]
    assert {name: found["exact_match"] for name, found in by_size.items()} == {"0": 1.0, "1": 0.0, "entire": 0.5}
    by_tag = run(data, subset="tags")["subsets"]
    assert {name: found["captions"] for name, found in by_tag.items()} == {"a": 2, "b": 1, "entire": 4}
    with pytest.raises(ConfigError, match=r"run\.subset: no record has the key 'sise'; did you mean 'size'"):
        run(data, subset="sise")


def test_a_subset_without_scored_captions_is_left_out(nocaps, results):
    for record in nocaps.records:
        if record.extras["domain"] == "out-domain":
            record.captions = []
    scores = run(nocaps)
    assert list(scores["subsets"]) == ["in-domain", "near-domain", "entire"] and scores["captions"] == 3


def test_nocaps_submission_has_numbers_for_ids_in_order(nocaps, results):
    nocaps.records.reverse()
    run(nocaps, split="test", epoch="best")
    written = json.loads((results / "test_epochbest_submission.json").read_text())
    assert written == [{"image_id": int(key), "caption": text} for key, text in SAID.items()]
    assert {row["image_id"] for row in json.loads((results / "test_epochbest.json").read_text())} == set(SAID)


def test_cocos_submission_has_the_name_that_its_server_wants(tmp_path, results):
    files = released_files.coco(tmp_path)
    data = CocoCaptionEvalDataset(to_tensor, str, str(files["images"]), [str(files["official"])])
    data.records = [record for record in data.records if record.image_id != "522418"]
    run(data, epoch=0)
    path = results / "val_epoch0_submission" / "captions_val2014_evlgen_results.json"
    assert json.loads(path.read_text()) == [
        {"image_id": 42, "caption": captions("green")[0]},
        {"image_id": 184613, "caption": captions("black")[0]},
        {"image_id": 391895, "caption": captions("red")[0]},
    ]


def test_ids_that_no_server_knows_make_no_submission(nocaps, results, caplog):
    for record in nocaps.records:
        record.image_id = f"x{record.image_id}"
    with caplog.at_level(logging.WARNING):
        run(nocaps)
    assert [path.name for path in results.iterdir()] == ["val_epoch2.json"]
    assert "no submission file is written: the server wants the numbers" in caplog.text


def test_data_sets_without_a_server_have_no_submission(tmp_path, results):
    files = released_files.flickr30k(tmp_path)
    rows = [{"image": "flickr30k-images/1007129816.jpg", "caption": captions("white"), "image_id": 7}]
    path = released_files.write(tmp_path / "mine.json", rows)
    run(ImageCaptionEvalDataset(to_tensor, str, str(files["images"]), [str(path)]))
    assert [path.name for path in results.iterdir()] == ["val_epoch2.json"]


def test_a_machine_without_java_says_so_once_and_asks_for_nothing(monkeypatch, caplog):
    monkeypatch.setattr(tokenizers.shutil, "which", lambda name: None)
    with caplog.at_level(logging.INFO):
        CaptioningTask()
        CaptioningTask(metrics_tokenizer="java_free")
        CaptioningTask(report_metric=False)
    assert [r.message for r in caplog.records if "java" in r.message] == [
        "there is no `java` here: captions are scored on Java-free tokens, without METEOR and SPICE"
    ]

"""The project files of zero-shot captioning, run from files in the official schema to the scores."""

import json
from pathlib import Path

import pytest
import released_files
import torch
from omegaconf import OmegaConf
from pycocoevalcap.cider.cider import Cider
from released_files import COLOURS, FLICKR, NOCAPS, captions

from lavis_evlgen import launch
from lavis_evlgen.metrics.tokenizers import JAVA_FREE, PTB, java, tokenize
from lavis_evlgen.models.evlgen import EVLGen

PROJECTS = Path(__file__).parent.parent / "projects" / "evlgen"
GENERATION = {"max_len": 30, "min_len": 8, "num_beams": 5}  # the official evaluation file's
MEAN, STD = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])


def tiny_options(tiny_config, kind: str, dataset: str) -> list[str]:
    """Options that put a tiny model and a laptop in the place of the project's."""
    tiny = tiny_config(kind)
    named = {key: value for key, value in tiny.items() if not isinstance(value, dict)}
    named |= {f"{key}.{name}": value for key in ("vit_config", "connector_config") for name, value in tiny[key].items()}
    named |= {"bert_model": "null", "load_pretrained": "false"}
    return [
        *(f"model.{key}={value}".replace(" ", "") for key, value in named.items()),
        f"datasets.{dataset}.vis_processor.eval.image_size=56",
        *("run.device=cpu", "run.precision=fp32", "run.num_workers=0", "run.batch_size_eval=3"),
    ]


def places(files: dict[str, Path], dataset: str, **annotations: str) -> list[str]:
    """Options that say where the official files lie."""
    key = f"datasets.{dataset}.build_info"
    named = [f"{key}.annotations.{split}.storage={files[name]}" for split, name in annotations.items()]
    return [f"{key}.images.storage={files['images']}", *named]


def run(tmp_path: Path, name: str, options: list[str]) -> tuple[dict, Path]:
    """Scores of the project's only split, and its result folder."""
    path = PROJECTS / f"{name}.yaml"
    project = OmegaConf.load(path).run
    assert {key: project[key] for key in GENERATION} == GENERATION and "prompt" not in project
    metrics = launch.start(["--cfg-path", str(path), "--options", *options], evaluate=True)
    (split,) = project.test_splits
    (folder,) = (tmp_path / project.output_dir).iterdir()
    return metrics[split], folder / "result"


@pytest.fixture
def words_replaced(monkeypatch):
    """The model runs, but says the picture's colour in the first reference's words, and takes blue for red."""
    generate = EVLGen.generate

    def say(self, samples, **options):
        made = generate(self, samples, **{**options, "max_length": 8})
        assert len(made) == len(samples["image"]) and {**options} == {
            "num_beams": 5, "max_length": 30, "min_length": 8
        }  # fmt: skip
        pixels = samples["image"][:, :, 28, 28].cpu() * STD + MEAN
        names = [min(COLOURS, key=lambda name: sum(abs(p * 255 - c) for p, c in zip(pixel, COLOURS[name], strict=True)))
                 for pixel in pixels.tolist()]  # fmt: skip
        return [captions("red" if name == "blue" else name)[0] for name in names]

    monkeypatch.setattr(EVLGen, "generate", say)


def cider(said: dict[str, str], references: dict[str, list[str]]) -> float:
    """pycocoevalcap's CIDEr."""
    tokenizer = PTB if java() else JAVA_FREE
    made = tokenize({key: [text] for key, text in said.items()}, tokenizer)
    return Cider().compute_score(tokenize(references, tokenizer), made)[0]


@pytest.mark.parametrize("kind", ["opt", "vicuna"])
def test_nocaps_with_the_models_words_replaced(tmp_path, tiny_config, monkeypatch, words_replaced, kind):
    monkeypatch.chdir(tmp_path)
    files = released_files.nocaps(tmp_path / "data")
    options = [*tiny_options(tiny_config, kind, "nocaps"), *places(files, "nocaps", val="val", test="test")]
    scores, results = run(tmp_path, f"nocaps_zeroshot_{kind}_eval", options)
    assert scores["captions"] == 4 and scores["skipped"] == 0
    exact = {name: found["exact_match"] for name, found in scores["subsets"].items()}
    assert exact == {"in-domain": 1.0, "near-domain": 0.5, "out-domain": 1.0, "entire": 0.75}
    said = {str(n): captions("red" if colour == "blue" else colour)[0] for n, (colour, _) in NOCAPS.items()}
    references = {str(n): 2 * captions(colour) for n, (colour, _) in NOCAPS.items()}
    assert scores["subsets"]["entire"]["CIDEr"] == pytest.approx(cider(said, references), abs=1e-6)
    near = {key: said[key] for key in ("1", "2")}
    expected = cider(near, {key: references[key] for key in near})
    assert scores["subsets"]["near-domain"]["CIDEr"] == pytest.approx(expected, abs=1e-6) and expected > 1
    submitted = json.loads((results / "val_epochbest_submission.json").read_text())
    assert submitted == [{"image_id": int(key), "caption": text} for key, text in said.items()]


@pytest.mark.parametrize(("kind", "form"), [("opt", "lists"), ("vicuna", "karpathy")])
def test_flickr30k_with_the_models_words_replaced(tmp_path, tiny_config, monkeypatch, words_replaced, kind, form):
    monkeypatch.chdir(tmp_path)
    files = released_files.flickr30k(tmp_path / "data")
    test = "test" if form == "lists" else "karpathy"
    options = [*tiny_options(tiny_config, kind, "flickr30k_caption"), *places(files, "flickr30k_caption", test=test)]
    options += [f"datasets.flickr30k_caption.build_info.annotations.{split}=null" for split in ("train", "val")]
    scores, results = run(tmp_path, f"flickr30k_zeroshot_{kind}_eval", options)
    references = {str(n): captions(colour) for n, (split, colour) in FLICKR.items() if split == "test"}
    said = {key: texts[0] for key, texts in references.items()}
    assert (scores["captions"], scores["exact_match"], scores["skipped"]) == (2, 1.0, 0)
    assert scores["CIDEr"] == pytest.approx(cider(said, references), abs=1e-6)
    assert scores["Bleu_4"] == pytest.approx(1, abs=1e-6)
    written = json.loads((results / "test_epochbest.json").read_text())
    assert {row["image_id"]: row["caption"] for row in written} == said
    assert [path.name for path in results.iterdir()] == ["test_epochbest.json"]


@pytest.mark.parametrize(("kind", "form"), [("opt", "official"), ("vicuna", "karpathy")])
def test_coco_with_the_models_words_replaced(tmp_path, tiny_config, monkeypatch, words_replaced, kind, form):
    monkeypatch.chdir(tmp_path)
    files = released_files.coco(tmp_path / "data")
    options = [*tiny_options(tiny_config, kind, "coco_caption"), *places(files, "coco_caption", val=form)]
    options += [f"datasets.coco_caption.build_info.annotations.{split}=null" for split in ("train", "test")]
    scores, results = run(tmp_path, f"caption_coco_zeroshot_{kind}_eval", options)
    # COCO's own file has all of val2014, Karpathy's split two of its pictures; blue is called red
    assert (scores["captions"], scores["exact_match"]) == ((4, 0.75) if form == "official" else (2, 0.5))
    submitted = json.loads((results / "val_epochbest_submission/captions_val2014_evlgen_results.json").read_text())
    assert [row["image_id"] for row in submitted][-2:] == [391895, 522418]
    assert submitted[-2:] == [
        {"image_id": 391895, "caption": captions("red")[0]},
        {"image_id": 522418, "caption": captions("white")[0]},
    ]


def test_the_models_own_words_are_scored_too(tmp_path, tiny_config, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = released_files.nocaps(tmp_path / "data")
    options = [*tiny_options(tiny_config, "opt", "nocaps"), *places(files, "nocaps", val="val", test="test")]
    scores, results = run(tmp_path, "nocaps_zeroshot_opt_eval", [*options, "run.metrics_tokenizer=java_free"])
    said = {row["image_id"]: row["caption"] for row in json.loads((results / "val_epochbest.json").read_text())}
    assert set(said) == {"0", "1", "2", "3"} and all(said.values())
    references = {str(n): 2 * captions(colour) for n, (colour, _) in NOCAPS.items()}
    made = tokenize({key: [text] for key, text in said.items()}, JAVA_FREE)
    assert scores["CIDEr"] == pytest.approx(Cider().compute_score(tokenize(references, JAVA_FREE), made)[0], abs=1e-9)
    assert scores["tokenizer"] == JAVA_FREE and list(scores["subsets"])[-1] == "entire"

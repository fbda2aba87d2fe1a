"""A small pretraining of ALBEF and BLIP with and without text-guided reduction: retrieval recall at equal cost.

    python benchmarks/elip_pretraining.py [--families albef blip] [--steps 100] [--seeds 1 2 3] [--json FILE]

Arms: parent (all tokens), official (look-ahead through the stage), one block (look-ahead of one) and random (tokens
drawn at random). Everything else is projects/elip/pretrain_demo_{albef,blip}.yaml: real pretrained parts, composed
pictures, LAVIS's losses. Arms have the same data in the same order and train by turns, so that what else the machine
does hits all of them. Training time is processor time. After `--steps` steps all are evaluated (equal steps); then the
faster arms go on until they have trained as long as the parent, and are evaluated again (equal time).

Recall: LAVIS's retrieval evaluation without reduction, on held-out pictures that have one caption each, no two alike;
the best `--k-test` of each row are re-ranked by the matching head.

The text encoder's vocabulary is cut to the words of the captions (no other change): with all of BERT's words the heads
over the vocabulary would be a far larger part of a model this small than they are of ALBEF or BLIP.

Momentum distillation is nearly off: LAVIS lets its weight rise over two epochs, and here the longest run is one.

`--lavis-runner` trains the arms by LAVIS's own runner_base instead, one after the other, for whole epochs.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lavis.common.registry import registry
from lavis.tasks.retrieval import RetrievalTask
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torchvision import transforms
from transformers import BertModel, BertTokenizer

from lavis_evlgen import launch
from lavis_evlgen.demos import faster_precision
from lavis_evlgen.embedded import pictures
from lavis_evlgen.embedded.weights import minilm
from lavis_evlgen.runners import rng
from lavis_evlgen.runners.placement import Placement

ROOT = Path(__file__).parent.parent
ARMS: dict[str, dict[str, Any]] = {
    "parent": {"elip_training": False},
    "official": {"elip_lookahead": "official"},
    "one block": {"elip_lookahead": 1},
    "random": {"elip_lookahead": "random"},
}
RECALLS = ("txt_r1", "txt_r5", "txt_r10", "img_r1", "img_r5", "img_r10", "r_mean")


def prepare(folder: Path, train: int, test: int) -> Path:
    """Pictures, and MiniLM with the words of their captions alone."""
    data = pictures.build(folder / "data", train=train, val=0, test=test, unseen=0, image_size=112)
    words = {word for split in ("train", "test") for row in rows(data, split) for word in _pieces(row["caption"][0])}
    source = BertModel.from_pretrained(str(minilm()), add_pooling_layer=False)
    all_words = (minilm() / "vocab.txt").read_text("utf-8").splitlines()
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    kept = [*special, *sorted(words - set(special))]
    places = torch.tensor([all_words.index(word) for word in kept])
    embeddings = source.embeddings.word_embeddings.weight.data[places].clone()
    source.resize_token_embeddings(len(kept))
    source.embeddings.word_embeddings.weight.data.copy_(embeddings)
    source.save_pretrained(folder / "bert")
    (folder / "bert" / "vocab.txt").write_text("\n".join(kept) + "\n", "utf-8")
    return data


def _pieces(caption: str) -> list[str]:
    if not hasattr(_pieces, "tokenizer"):
        _pieces.tokenizer = BertTokenizer.from_pretrained(str(minilm()))  # type: ignore[attr-defined]
    return _pieces.tokenizer.tokenize(caption)  # type: ignore[attr-defined]


def rows(data: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / f"{split}.jsonl").read_text("utf-8").splitlines()]


def configuration(family: str, arm: str, seed: int, folder: Path, steps: int, precision: str = "fp32") -> DictConfig:
    """The demo's configuration for an arm; its schedule is constant, so that any number of steps is a whole run."""
    config: Any = OmegaConf.load(ROOT / "projects" / "elip" / f"pretrain_demo_{family}.yaml")
    config.model |= {**ARMS[arm], "bert_model": str(folder / "bert")}
    config.model.bert_config.vocab_size = len((folder / "bert" / "vocab.txt").read_text("utf-8").splitlines())
    section = config.datasets.image_caption
    section.images, section.annotations.train = str(folder / "data"), str(folder / "data" / "train.jsonl")
    output = folder / family / f"{arm.replace(' ', '_')}_{seed}"
    config.run |= {
        "max_iters": steps,
        "seed": seed,
        "precision": precision,
        "output_dir": str(output),
        "auto_resume": False,
    }
    config.run.iters_per_inner_epoch = steps  # no checkpoints on the way
    launch.fill_in(config.run, Placement.from_environment(), evaluate=False)
    return config


class Arm:
    """An arm in training; its random numbers are its own."""

    def __init__(self, family: str, name: str, seed: int, folder: Path, most_steps: int, precision: str) -> None:
        self.name, self.seconds = name, 0.0
        config = launch.lavis_config(configuration(family, name, seed, folder, most_steps, precision))
        self.runner = launch.build_runner(config)
        self._stack = ExitStack()
        self._progress = self._stack.enter_context(self.runner.training.opened(show=False))
        self._random_state = rng.capture()

    @property
    def steps(self) -> int:
        return self.runner.training.iters

    def advance(self, steps: int) -> None:
        rng.restore(self._random_state)
        self.runner.model.train()
        began = time.process_time()
        for _ in range(steps):
            self.runner.training.advance(self._progress, validate=False)
        self.seconds += time.process_time() - began
        self._random_state = rng.capture()


class Evaluation:
    """LAVIS's retrieval evaluation of a pretraining model's weights."""

    def __init__(self, family: str, data: Path, folder: Path, k_test: int) -> None:
        pretraining = configuration(family, "parent", 0, folder, 1).model
        config = {key: value for key, value in pretraining.items() if key not in ("arch", "model_type")}
        config |= {"load_finetuned": False, "pretrained": None, "vit_weights": None, "bert_model": None}
        config["tokenizer"] = str(folder / "bert")
        config["med_config_path"] = f"configs/models/{'med_config_albef' if family == 'albef' else 'med_config'}.json"
        config["bert_config"] = {**config["bert_config"]}
        config["bert_config"]["vocab_size"] += 2 if family == "blip" else 0  # BLIP's two own tokens
        self.model = registry.get_model_class(f"elip_{family}_retrieval").from_config(OmegaConf.create(config)).eval()
        self.task = RetrievalTask(SimpleNamespace(k_test=k_test))
        self.loader = _held_out(data)
        registry.mapping["paths"]["output_dir"] = str(folder)  # where LAVIS notes its results

    @torch.no_grad()
    def __call__(self, state: dict[str, torch.Tensor]) -> dict[str, float]:
        own = self.model.state_dict()
        renamed = {name.replace("text_encoder.bert.", "text_encoder."): tensor for name, tensor in state.items()}
        used = {name: tensor for name, tensor in renamed.items() if name in own and "queue" not in name}
        missing = [name for name in own if name not in used and "_m." not in name and "queue" not in name]
        assert not missing, missing
        self.model.load_state_dict(used, strict=False)
        found = self.task.evaluation(self.model, self.loader)
        return {name: round(found[name], 2) for name in RECALLS}


class _Batches(list):
    dataset: Any


def _held_out(data: Path) -> _Batches:
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    process = transforms.Compose([transforms.ToTensor(), normalise])
    held_out = rows(data, "test")
    images = torch.stack([process(Image.open(data / row["image"]).convert("RGB")) for row in held_out])
    batches = _Batches({"image": part} for part in images.split(30))
    numbers = range(len(held_out))
    batches.dataset = SimpleNamespace(
        text=[row["caption"][0] for row in held_out],
        image=[row["image"] for row in held_out],
        txt2img={number: number for number in numbers},
        img2txt={number: [number] for number in numbers},
    )
    return batches


def compare(family: str, seed: int, folder: Path, args: Namespace, evaluate: Evaluation) -> list[dict[str, Any]]:
    """One row an arm."""
    arms = [Arm(family, name, seed, folder, 4 * args.steps, args.precision) for name in args.arms]
    found: list[dict[str, Any]] = [{"family": family, "seed": seed, "arm": arm.name} for arm in arms]
    for done in range(0, args.steps, args.turn):
        for arm in arms:
            arm.advance(min(args.turn, args.steps - done))
    for arm, row in zip(arms, found, strict=True):
        row |= {"steps": arm.steps, "seconds": arm.seconds, "equal_steps": evaluate(arm.runner.model.state_dict())}
    budget = next((arm.seconds for arm in arms if arm.name == "parent"), 0.0)
    for arm, row in zip(arms, found, strict=True):
        a_step = arm.seconds / arm.steps
        while arm.seconds + a_step / 2 < budget and arm.steps < 4 * args.steps:
            arm.advance(1)
        further = arm.steps > args.steps
        row |= {"steps_in_time": arm.steps, "seconds_in_time": arm.seconds}
        row["equal_time"] = evaluate(arm.runner.model.state_dict()) if further else row["equal_steps"]
        print(json.dumps(row), flush=True)
    return found


def by_lavis_runner(
    family: str, seed: int, folder: Path, args: Namespace, evaluate: Evaluation
) -> list[dict[str, Any]]:
    """Each arm by LAVIS's runner_base, for as many epochs as `--steps` fill at least."""
    from lavis.common.logger import SmoothedValue
    from lavis.runners import runner_base

    if not torch.cuda.is_available():  # two parts of LAVIS's runner want CUDA whatever the device is
        runner_base.PrefetchLoader = lambda loader: loader
        SmoothedValue.synchronize_between_processes = lambda self: None
    found = []
    for name in args.arms:
        config = configuration(family, name, seed, folder, 0)
        epochs = math.ceil(args.steps * config.run.batch_size_train / args.train)
        del config.run.iters_per_inner_epoch
        config.run |= {"runner": "runner_base", "max_iters": 0, "max_epoch": epochs, "min_lr": config.run.init_lr}
        config.run |= {"lr_sched": "linear_warmup_cosine_lr", "batch_size_eval": 1, "amp": False}  # flat: equal ends
        path = folder / "stock.yaml"
        OmegaConf.save(config, path)
        began = time.process_time()
        launch.start(["--cfg-path", str(path), "--stock-runner"], evaluate=False)
        (job,) = Path(config.run.output_dir).iterdir()
        state = torch.load(job / f"checkpoint_{epochs - 1}.pth", weights_only=True)["model"]
        row = {"family": family, "seed": seed, "arm": name, "steps": epochs * args.train // config.run.batch_size_train}
        found.append({**row, "seconds": time.process_time() - began, "equal_steps": evaluate(state)})
        print(json.dumps(found[-1]), flush=True)
    return found


def show(results: list[dict[str, Any]]) -> None:
    """Means over the seeds, with what the seeds gave for the mean recall."""
    print("\n| loss | arm | seconds a step | steps | R@1 (text, image) | mean recall (seeds) |")
    print("|---|---|---|---|---|---|")
    for kind, steps in (("equal_steps", "steps"), ("equal_time", "steps_in_time")):
        for family, arm in dict.fromkeys((row["family"], row["arm"]) for row in results if kind in row):
            of = [row for row in results if (row["family"], row["arm"]) == (family, arm)]
            mean = {name: statistics.mean(row[kind][name] for row in of) for name in RECALLS}
            seconds = statistics.mean(row["seconds"] / row["steps"] for row in of)
            seeds = ", ".join(f"{row[kind]['r_mean']:.1f}" for row in of)
            what = f"{family}, {kind.replace('_', ' ')}"
            first = f"{mean['txt_r1']:.1f}, {mean['img_r1']:.1f}"
            print(f"| {what} | {arm} | {seconds:.2f} | {of[0][steps]} | {first} | {mean['r_mean']:.1f} ({seeds}) |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=["albef", "blip"], choices=["albef", "blip"])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--turn", type=int, default=5, help="steps that an arm trains at a time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--train", type=int, default=720, help="pictures to train on")
    parser.add_argument("--test", type=int, default=90, help="pictures to find")
    parser.add_argument("--k-test", type=int, default=8, help="pairs of a row that are re-ranked")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: the faster one here"
    )
    parser.add_argument("--lavis-runner", action="store_true", help="in fp32, which is all it knows without a GPU")
    parser.add_argument("--out", type=Path, default=Path("outputs/elip_demo"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.precision = faster_precision() if args.precision == "auto" else args.precision
    folder = args.out.absolute()
    data = prepare(folder, args.train, args.test)
    results = []
    for family in args.families:
        evaluate = Evaluation(family, data, folder, args.k_test)
        for seed in args.seeds:
            train = by_lavis_runner if args.lavis_runner else compare
            results += train(family, seed, folder, args, evaluate)
            if args.json:
                args.json.write_text(
                    json.dumps({"options": {**vars(args), "out": None, "json": None}, "rows": results})
                )
    show(results)


if __name__ == "__main__":
    main()

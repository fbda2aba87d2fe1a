"""Checkpoints and folders of models that somebody else wrote: what they say of their model and processors."""

import json
from pathlib import Path
from typing import Any

import torch
from guard import put
from hypothesis import strategies as st
from mutations import as_json, damaged, mutated

from lavis_evlgen.errors import EvlgenError
from lavis_evlgen.interchange.checkpoint import Checkpoint
from lavis_evlgen.interchange.files import CONFIG, PREPROCESSOR, ModelFiles
from lavis_evlgen.interchange.records import read_records

PROCESSOR = {"name": "blip_image_eval", "image_size": 56, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
PREPROCESS = {
    "vis_processor": {"train": PROCESSOR, "eval": PROCESSOR},
    "text_processor": {"eval": {"name": "blip_question"}},
}
MODEL = {"vit_model": "eva_vit", "tome_r": [3, 2], "llm_model": "embedded:smollm2-135m", "connector": "tomeformer"}
RUN_CONFIG = {
    "model": {**MODEL, "arch": "evlgen", "model_type": "custom"},
    "preprocess": PREPROCESS,
    "datasets": {"visual_question_answer": {"images": "a", "annotations": {"train": "t.jsonl"}, **PREPROCESS}},
    "run": {"task": "evlgen_vqa", "prompt": "Q: {} A:", "max_iters": 3, "batch_size_train": 2},
}
FOLDER = {
    CONFIG: {
        "model_type": "evlgen",
        "architectures": ["EVLGen"],
        "library_name": "lavis_evlgen",
        "library_version": "0.1.0",
        "format": 1,
        "torch_dtype": "float32",
        "question_prompt": "Q: {} A:",
        "model": MODEL,
    },
    PREPROCESSOR: PREPROCESS,
}


def described(path: str) -> Any:
    """What a checkpoint says, as `load_checkpoint_and_preprocess` and `cli export` ask for it."""
    checkpoint = Checkpoint.read(path)
    found = checkpoint.values, checkpoint.preprocess, checkpoint.model_class, checkpoint.files()
    return *found, read_records(Path(path).parent, checkpoint.config)


def saved(guard: Any, config: Any) -> str:
    path = guard.empty() / "model.pth"
    torch.save({"model": {"ln_vision.bias": torch.zeros(3)}, "config": config}, path)
    return str(path)


def test_checkpoints(fuzz, guard):
    def check(config: Any) -> None:
        found = guard.read(described, saved(guard, config))
        if not isinstance(found, EvlgenError):
            prompt = found[3].question_prompt
            assert prompt is None or prompt.count("{}") == 1

    assert not isinstance(guard.read(described, saved(guard, RUN_CONFIG)), EvlgenError)
    fuzz(check, mutated(RUN_CONFIG), 60)


def test_folders(fuzz, guard):
    def check(files: dict[str, bytes]) -> None:
        guard.empty()
        for name, data in files.items():
            put(guard.inside / name, data)
        found = guard.read(ModelFiles.read, guard.inside)
        if isinstance(found, EvlgenError):
            assert str(guard.inside) in str(found)
        else:
            json.dumps(found.config("float32"))

    whole = {name: json.dumps(content).encode() for name, content in FOLDER.items()}
    check(whole)
    changed = [
        st.sampled_from([each]) | damaged(each) | mutated(FOLDER[name]).map(as_json) for name, each in whole.items()
    ]
    fuzz(lambda both: check(dict(zip(whole, both, strict=True))), st.tuples(*changed), 80)

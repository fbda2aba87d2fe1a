"""A tiny BERT with its tokenizer on disk, also where LAVIS's own BLIP-2 models look for bert-base-uncased."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer
from transformers.utils import hub

_WORDS = "a an the cat car dog tree red green blue on under small big box disc & 0 1 2 3 4 5 6 7 8 9"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS.split()]
SIZE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,  # large enough for every weight to show in the loss
}


def write_bert(folder: Path) -> str:
    """Weights (language head included) and tokenizer into `folder`; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text("\n".join(VOCABULARY))
    BertTokenizer(str(folder / "words.txt")).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        bert = BertForMaskedLM(BertConfig(**SIZE))
        with torch.no_grad():
            bert.cls.predictions.bias.normal_()
    bert.save_pretrained(folder)
    return str(folder)


def put_into_hub_cache(root: Path, monkeypatch: pytest.MonkeyPatch, name: str = "bert-base-uncased") -> None:
    """Let transformers find the tiny BERT as `name` in its cache, offline."""
    revision = "0" * 40
    model = root / f"models--{name}"
    write_bert(model / "snapshots" / revision)
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / "main").write_text(revision)
    monkeypatch.setattr(hub, "TRANSFORMERS_CACHE", str(root))

"""ALBEF and BLIP of LAVIS at a size for tests: a tokenizer of a few words, 6 blocks of width 24, 16 patches."""

from pathlib import Path

import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_evlgen.models.elip.parts import local_parts

WORDS = "a an the red green blue dog cat tree ball on in left right of big small is what colour yes no picture shows"
IMAGE_SIZE = 64
EPOCH = {"epoch": 1, "iters": 3, "num_iters_per_epoch": 10}
MODELS = [
    "albef_pretrain", "albef_retrieval", "albef_vqa", "albef_nlvr", "albef_classification",
    "blip_pretrain", "blip_retrieval", "blip_vqa", "blip_nlvr",
]  # fmt: skip
QUEUED = [name for name in MODELS if "pretrain" in name or "retrieval" in name]
SMALL = 8  # tokens that are left of 17
CAPTIONS = ["a red dog on the left", "the small blue ball", "a green tree", "a cat in the red tree"]


def tokenizer_folder(folder: Path) -> str:
    """A BERT tokenizer (WordPiece, lower case) of single letters and some words."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [word for word in WORDS.split() if word not in letters]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *words]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return str(folder)


def tiny_keys(folder: Path, family: str, **overrides) -> dict:
    """Model keys of a tiny ALBEF or BLIP without any download."""
    config = {
        "med_config_path": f"configs/models/{'med_config_albef' if family == 'albef' else 'med_config'}.json",
        "tokenizer": tokenizer_folder(folder / "tokenizer"),
        "bert_model": None,
        "bert_config": {
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_attention_heads": 2,
            "num_hidden_layers": 7,
            "vocab_size": 90,
        },
        "vit_config": {"embed_dim": 24, "depth": 6, "num_heads": 3},
        "vit_weights": None,
        "elip_positions": [1, 2, 5],
        "image_size": IMAGE_SIZE,
        "embed_dim": 16,
        "queue_size": 8,
        "max_txt_len": 12,
        "mlm_mask_prob": 0.5,  # with LAVIS's 0.15 a batch of few words may have none masked, and no loss
        "load_finetuned": False,
        "pretrained": None,
    }
    return {**config, **overrides}


def model_keys(folder: Path, name: str, **overrides) -> dict:
    """Tiny keys of one of `MODELS`."""
    family, task = name.split("_")
    classes = {"num_classes": 3 if task == "classification" else 2} if task in ("nlvr", "classification") else {}
    return tiny_keys(folder, family, **classes, **overrides)


def build(name: str, keys: dict, seed: int = 0):
    """A registered model: ``elip_…``, or one of LAVIS's own made of the same parts with the same weights."""
    torch.manual_seed(seed)
    cls = registry.get_model_class(name)
    if name.startswith("elip_"):
        return cls.from_config(OmegaConf.create(keys))
    plain = {key: value for key, value in keys.items() if not key.startswith("elip_")}
    loads = cls.load_checkpoint_from_config
    cls.load_checkpoint_from_config = lambda self, cfg: loads(self, cfg) if cfg.get("pretrained") else None
    try:
        with local_parts(plain) as config:
            return cls.from_config(config)
    finally:
        cls.load_checkpoint_from_config = loads


def samples(task: str, count: int = 4, seed: int = 1) -> dict:
    """A batch as LAVIS's data sets of a task collate it."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randn(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator) for _ in range(2)]
    texts = (CAPTIONS * count)[:count]
    if task == "nlvr":
        return {
            "image0": images[0],
            "image1": images[1],
            "text_input": texts,
            "label": torch.arange(count) % 2,
            **EPOCH,
        }
    batch = {"image": images[0], "text_input": texts, **EPOCH}
    if task == "retrieval":
        return {**batch, "image_id": torch.arange(count)}
    if task == "classification":
        return {**batch, "label": torch.arange(count) % 3}
    if task == "vqa":
        answers = [["yes"], ["red", "blue"]] * count
        chosen = answers[:count]
        return {
            **batch,
            "answer": [answer for each in chosen for answer in each],
            "weight": torch.ones(sum(map(len, chosen))),
            "n_answers": torch.tensor([len(each) for each in chosen]),
        }
    return batch


def step(model, batch: dict, seed: int = 3):
    """Forward and backward in training mode; LAVIS's output."""
    torch.manual_seed(seed)
    model.train().zero_grad()
    output = model(batch)
    output["loss"].backward()
    return output

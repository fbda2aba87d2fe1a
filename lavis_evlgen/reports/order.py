"""Whether a model knows an episode from its reverse in time: the likelier one of both captions, clip by clip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from lavis.common.registry import registry

import lavis_evlgen  # noqa: F401  registers models and builders
from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.errors import DataError
from lavis_evlgen.json_text import read_json
from lavis_evlgen.reports.run_files import RunFiles
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.runners.step import autocast

CHANCE = 0.5  # of two captions; a model for which both clips of a pair are the same scores exactly that
ORDER_FILE = "order.json"
MIRROR_KEY = "mirror_caption"


def order_scores(run: RunFiles) -> dict[str, Any]:
    """Forced choices of a finished run on its test splits, kept in its order.json once they are made.

    Of every clip whose record has a ``mirror_caption`` (the caption of its reverse), the choice is right when its own
    caption is more likely to the model (all its tokens, the end token among them). A model that does not see order
    finds the same caption likelier for both clips of a pair, and is right for one of them.

    Returns:
        ``trainable_parameters``; ``tokens_out``, the soft prompt's tokens; ``right``, by split and image_id a bool.

    Raises:
        DataError: the run has no weights, or no evaluated clip has a mirror caption.
    """
    file = run.folder / ORDER_FILE
    if not run.weights.is_file():
        raise DataError(f"{run.weights} is missing: train the run to its end")
    stamp = run.weights.stat().st_mtime_ns
    if file.is_file():
        kept = read_json(file, "remove it: the choices are made again")
        if kept.get("weights") == stamp:
            return kept
    settings = RunSettings.from_config(run.config.run)
    model = registry.get_model_class(run.config.model.arch).from_config(run.config.model).eval()
    model.load_checkpoint(str(run.weights))
    found: dict[str, Any] = {
        "weights": stamp,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "tokens_out": None,
        "right": {},
    }
    for name, config in run.config.datasets.items():
        for split, dataset in registry.get_builder_class(name)(config).build_datasets().items():
            if split in tested_splits(run) and any(MIRROR_KEY in record.extras for record in dataset.records):
                with torch.no_grad(), autocast(torch.device("cpu"), settings.precision_on("cpu")):
                    choices = list(_choices(model, dataset, settings.batch_size_eval))
                found["right"][split] = {image_id: right for image_id, right, _ in choices}
                found["tokens_out"] = choices[0][2]
    if not found["right"]:
        raise DataError(f"{run.folder}: no clip of {', '.join(tested_splits(run))} has a {MIRROR_KEY} in its record")
    file.write_text(json.dumps(found, indent=0) + "\n", "utf-8")
    return found


def tested_splits(run: RunFiles) -> list[str]:
    """The evaluated splits of run.test_splits, which chose nothing about the run; all evaluated ones without any."""
    return [split for split in run.config.run.get("test_splits") or [] if split in run.scores] or list(run.scores)


def likelihoods(model: Any, soft_prompt: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
    """Log-probability of each text with its end token after its soft prompt [B, L', D_l]: [B]."""
    language = model.language
    rows = [[*language.encode_text(text, "")[1]] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [language.end_token_id] * (longest - len(row)) for row in rows])
    return language.log_likelihood(soft_prompt, ids)


def _choices(model: Any, dataset: Any, batch: int) -> Any:
    """(image_id, right, tokens of the soft prompt) of every readable clip with a mirror caption."""
    wanted = [index for index in range(len(dataset)) if MIRROR_KEY in dataset.record(index).extras]
    for start in range(0, len(wanted), batch):
        items = [(dataset.record(index), dataset[index]) for index in wanted[start : start + batch]]
        items = [(record, item) for record, item in items if not isinstance(item, BadSample)]
        if not items:
            continue
        prompt = model.soft_prompt({"video": torch.stack([item["video"] for _, item in items])})
        own = likelihoods(model, prompt, [item["text_input"] for _, item in items])
        mirror = [dataset.text_processor(record.extras[MIRROR_KEY]) for record, _ in items]
        right = own > likelihoods(model, prompt, mirror)
        yield from (
            (record.image_id, bool(each), prompt.shape[1]) for (record, _), each in zip(items, right, strict=True)
        )

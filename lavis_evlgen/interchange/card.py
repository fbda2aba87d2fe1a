"""The model card: README.md of a model's folder, with the front matter that a Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from torch import Tensor

from lavis_evlgen.embedded.about import about
from lavis_evlgen.embedded.trained import WEIGHTS
from lavis_evlgen.interchange.files import LIBRARY, PARTS, ModelFiles
from lavis_evlgen.interchange.records import Records
from lavis_evlgen.reports.usage import command
from lavis_evlgen.versions import versions

UNKNOWN = "not recorded"
_ROLES = dict(
    zip(
        PARTS,
        ("frozen ViT", "its weights", "BERT, the start of the connector", *["frozen language model"] * 2),
        strict=True,
    )
)
# the hub's name of the task and our tag, by whether the model takes clips, and whether it answers questions
_TASKS = {
    (False, False): ("image-to-text", "image-captioning"),
    (False, True): ("visual-question-answering", "visual-question-answering"),
    (True, False): ("video-text-to-text", "video-captioning"),
    (True, True): ("video-text-to-text", "video-question-answering"),
}
_SHARES = ("exact_match", "named_right", "size_right", "background_right", "place_right", "relation_right")
_SCORES = ("CIDEr", "Bleu_4", "ROUGE_L", "METEOR", "SPICE", *_SHARES, "accuracy", "order_accuracy")
_CAPTIONS = """\
- It writes what pictures like its training pictures were captioned with. Other pictures get a caption too, and nothing
  in the model says that it is wrong."""
_ANSWERS = """\
- It answers the way questions like its training questions were answered. Other questions get an answer too, and
  nothing in the model says that it is wrong."""
_LIMITS = """\
{written}
- The language model is frozen: what it leaves out or gets wrong about the world, this model does too.
- No evaluation of bias or safety was made."""


def model_card(
    title: str,
    files: ModelFiles,
    weights: Mapping[str, Tensor],
    dtype: str,
    records: Records,
    license_name: str | None = None,
    further: str = "",
    source: str | None = None,
) -> str:
    """The text of the card.

    Args:
        title: the name of the model.
        weights: what the folder holds, to be counted.
        dtype: of the weights in the file.
        records: what is known of its making; what is not known is said to be so.
        license_name: of the weights, as the hub names licences.
        further: sections after the others.
        source: what the model is loaded by; None takes the title, as if the folder were here under this name.
    """
    video, asked = "video" in files.arch, records.question_prompt is not None
    task, tag = _TASKS[video, asked]
    matter: dict[str, Any] = {"library_name": LIBRARY, "pipeline_tag": task, "tags": ["evlgen", "lavis", tag]}
    if license_name:
        matter["license"] = license_name
    numbers = sum(tensor.numel() for tensor in weights.values())
    sections = [
        f"---\n{yaml.safe_dump(matter, sort_keys=False)}---\n\n# {title}",
        f"A model of the architecture `{files.arch}` of lavis_evlgen. `{WEIGHTS}` holds what was trained, "
        f"{numbers:,} numbers in {dtype}; the frozen parts are loaded by their names in `config.json`.",
        f"## Use\n\n{_use(files.arch, source or title, video, asked)}",
        f"## Parts\n\n{_table(('part', 'name', 'licence'), _parts(files))}",
        f"Licence of these weights: {license_name or 'not stated'}.",
        f"## Data\n\n{_table(('data set', 'what it is'), records.data.items())}",
        f"## Training\n\n{_table(('', ''), records.training.items())}",
        f"## Results\n\n{_results(records)}",
        f"## Does it look at the picture?\n\n{_health(records)}",
        f"## Limits\n\n{_LIMITS.format(written=_ANSWERS if asked else _CAPTIONS)}",
        *[f"## Attribution\n\n{notice}" for notice in records.notices],
        further,
        f"## Versions\n\n{_versions(records)}",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _use(arch: str, source: str, video: bool, asked: bool) -> str:
    return f"""`{source}` is this folder: its path, or OWNER/NAME on a hub.

```python
import lavis_evlgen

model, vis_processors, text_processors = lavis_evlgen.load_model_and_preprocess("{arch}", "{source}")
```

```sh
{command(f"--checkpoint {source}", video, asked)}
```"""


def _parts(files: ModelFiles) -> list[tuple[str, str, str]]:
    rows = []
    for key, role in _ROLES.items():
        if name := files.values.get(key):
            known = about(name)
            licence = f"{known.title}: {known.licence}; {known.installed()}" if known else "see its own page"
            rows.append((role, f"`{name}`", licence))
    return rows


def _results(records: Records) -> str:
    if not records.scores:
        return f"{UNKNOWN.capitalize()}: the run has no evaluation."
    names = [name for name in _SCORES if any(name in scores for scores in records.scores.values())]
    counted = [(split, scores.get("captions", scores.get("questions", "")), *[_figure(scores.get(n)) for n in names])
               for split, scores in records.scores.items()]  # fmt: skip
    tokenizers = {str(scores["tokenizer"]) for scores in records.scores.values() if "tokenizer" in scores}
    words = f"Generated with {records.generation or 'settings that are ' + UNKNOWN}"
    words += f"; n-gram scores on tokens by {', '.join(sorted(tokenizers))}." if tokenizers else "."
    titles = ("accuracy, %" if name == "accuracy" else name for name in names)
    return f"{_table(('split', 'number', *titles), counted)}\n\n{words}"


def _health(records: Records) -> str:
    own, others = records.held_out_loss, records.shuffled_loss
    if own is None or others is None:
        return (
            f"{UNKNOWN.capitalize()}: the run did not compare held-out pictures with shuffled ones (run.health_freq)."
        )
    return (
        f"Loss on held-out pictures {own:.3f} nats a token; with the captions of other pictures {others:.3f}. A model "
        "that does not look has the same loss twice."
    )


def _versions(records: Records) -> str:
    def said(found: Mapping[str, str]) -> str:
        return ", ".join(f"{name} {version}" for name, version in found.items())

    return f"Trained with: {said(records.versions) or UNKNOWN}. Written with: {said(versions())}."


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    if len(lines) == 2:
        return f"{UNKNOWN.capitalize()}."
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return UNKNOWN if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def _figure(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"

"""The sections of a report page, from a run's files and figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from lavis_evlgen.embedded.about import about
from lavis_evlgen.reports import page
from lavis_evlgen.reports.charts import Curve, averaged, line_chart
from lavis_evlgen.reports.examples import Example
from lavis_evlgen.reports.run_files import RunFiles

LONGEST_SIDE = 448  # pixels of a picture on the page
MARKS = {
    True: "<span class=good>✓ named right</span>",
    False: "<span class=bad>✗ named wrong</span>",
    None: "",
}


def summary(run: RunFiles, found: dict[str, Any]) -> str:
    """One sentence: what was trained, on what, for how long."""
    config = found["config"]
    names = [config.get("vit_model"), config.get("llm_model") or config.get("opt_model")]
    vision, language = (known.title if (known := about(name)) else name for name in names)
    text = (
        f"{vision} looks, {language} writes, both frozen. Between them a connector of "
        f"{found['trainable_parameters'] / 1e6:.1f} million parameters was trained for {found['steps']:,} steps of "
        f"{run.images_per_step} pictures"
    )
    if found["train_seconds"]:
        text += f", {duration(found['train_seconds'])} on {found['machine']['cores']} cores"
    return f"<p class=soft>{escape(text)}.</p>"


def headline(found: dict[str, Any]) -> str:
    """The figures that matter most, as far as the run has them."""
    values = [
        (share(found["named_right"]), "of new pictures: the thing is named right"),
        (share(found["named_right_unseen"]), "of things never trained on: named right"),
        (share(found["exact_match"]), "of captions equal a reference word for word"),
        (number(found["cider"]), "CIDEr (0 to 10)"),
    ]
    if found["held_out_loss"] is not None:
        gap = found["shuffled_loss"] - found["held_out_loss"]
        values.append((f"{gap:+.2f}", "nats a token: loss with wrong pictures over that with the right ones"))
    if found["tokens_out"]:
        values.append((f"{found['tokens_in']} → {found['tokens_out']}", "visual tokens"))
    return page.cards((value, name) for value, name in values if value)


def known_pictures(split: str, shown: Sequence[Example]) -> str:
    text = f"{len(shown)} of {split}, drawn at random: what the model wrote, then the references."
    return page.section("Pictures it never saw", text, page.gallery(map(_example, shown)))


def unseen_pictures(split: str | None, shown: Sequence[Example]) -> str:
    text = (
        f"{len(shown)} of {split}, drawn at random. Training showed none of these things: a right name comes from "
        "what the frozen models know."
    )
    return page.section("Things it never saw", text, page.gallery(map(_example, shown)))


def token_maps(found: dict[str, Any], rows: Sequence[tuple[Image.Image, ...]]) -> str:
    """Rows of a picture, its tokens before training and after."""
    text = (
        f"{found['tokens_in']} visual tokens enter the connector, {found['tokens_out']} leave it. Patches of one "
        "colour ended in the same token; a patch without colour stayed alone."
    )
    names = ("picture", "before training", "after training")
    figures = [page.figure(each, name, name) for row in rows for each, name in zip(row, names, strict=True)]
    return page.section("Which patches became one token", text, page.gallery(figures, "maps"))


def learning(run: RunFiles) -> str:
    """Loss curves: training, and held-out with right and with shuffled pictures where the run measured them."""
    curves = [
        Curve("training", averaged(run.curve("loss")), faint=True),
        Curve("held-out pictures", run.curve("held_out_loss")),
        Curve("shuffled pictures", run.curve("shuffled_loss")),
    ]
    text = "Loss on training pictures (means of neighbouring steps)."
    if curves[1].points:
        text += (
            " Loss on held-out pictures, and on the same captions beside the wrong pictures: the gap between these "
            "curves is what the model takes from the picture."
        )
    chart = line_chart(curves, "optimisation steps", "loss (nats a token)")
    return page.section("Learning", text, chart and f'<figure class="chart">{chart}</figure>')


def all_scores(run: RunFiles) -> str:
    """One row a score, one column a split."""
    splits = list(run.scores)
    names = dict.fromkeys(
        name for scores in run.scores.values() for name, value in scores.items() if isinstance(value, float)
    )
    rows = []
    for name in names:
        written = share if name.endswith(("_right", "exact_match")) else number
        rows.append([name.replace("_", " "), *(written(run.scores[split].get(name)) for split in splits)])
    rows.append(["pictures", *(str(run.scores[split].get("captions", "")) for split in splits)])
    return page.section("All scores", "", page.table(["", *(split.replace("_", " ") for split in splits)], rows))


def usage(run: RunFiles) -> str:
    """The command that captions with these weights."""
    if not run.weights.is_file():
        return ""
    return page.section("Use it", "The model captions any picture:", page.code(caption_command(run)))


def caption_command(run: RunFiles) -> str:
    """By model type where its yaml names this run's weights, else by the weights, which carry their configuration."""
    model = run.config.model
    types = registry.get_model_class(model.arch).PRETRAINED_MODEL_CONFIG_DICT
    default = types.get(model.get("model_type"))
    pretrained = OmegaConf.load(default).model.get("pretrained") if default else None
    if pretrained and Path(pretrained).absolute() == run.weights.absolute():
        how = f"--model {model.arch} --model-type {model.model_type}"
    else:
        how = f"--checkpoint {run.weights}"
    return f"python -m lavis_evlgen.cli caption {how} photo.jpg"


def facts(found: dict[str, Any]) -> str:
    """How the run was made, so that it can be made again."""

    def joined(values: dict[str, Any]) -> str:
        return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, ""))

    rows = {
        "command": found["command"],
        "seconds a step": found["seconds_per_step"],
        "seconds for the frozen ViT's features": found["feature_seconds"],
        "pictures seen": f"{found['images_seen']:,}",
        "trainable parameters": f"{found['trainable_parameters']:,}",
        "configuration": joined({name: repr(value) for name, value in found["config"].items()}),
        "machine": joined(found["machine"]),
        "versions": joined(found["versions"]),
        "date of this page": found["date"],
    }
    return page.section("The run", "", page.facts({name: value for name, value in rows.items() if value}))


def attribution(run: RunFiles) -> str:
    """Where weights and pictures come from, as far as this package brought them along."""
    model = run.config.model
    used = (about(model.get(key)) for key in ("vit_model", "llm_model", "bert_model"))
    lines = [f"{part.title}: {part.licence}; {part.installed()}." for part in used if part]
    for config in run.config.datasets.values():
        notice = Path(str(config.get("images") or config.get("videos") or ""), "ATTRIBUTION.txt")
        if notice.is_file():
            lines += notice.read_text(encoding="utf-8").split("\n\n")
    return "<footer>" + "".join(f"<p>{escape(line)}</p>" for line in lines) + "</footer>" if lines else ""


def _example(example: Example) -> str:
    picture = example.picture.copy()
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    marks = [MARKS[example.named_right], "<span class=good>word for word</span>" if example.word_for_word else ""]
    references = "".join(f"<li>{escape(text)}</li>" for text in example.record.captions)
    caption = f"<strong>{escape(example.caption) or '(nothing)'}</strong>" + ", ".join(filter(None, marks))
    return page.figure(picture, f"{caption}<ul>{references}</ul>", example.caption)


def share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

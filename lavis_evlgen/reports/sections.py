"""The sections of a report page, from a run's files and figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from PIL import Image

from lavis_evlgen.embedded.about import about
from lavis_evlgen.reports import page
from lavis_evlgen.reports.charts import Curve, averaged, line_chart
from lavis_evlgen.reports.examples import Example, shows_clips
from lavis_evlgen.reports.run_files import RunFiles
from lavis_evlgen.reports.usage import command_of_run

LONGEST_SIDE = 448  # pixels of a picture on the page
WIDEST_STRIP = 1120
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
        f"{run.images_per_step} {run.nouns}"
    )
    if found["train_seconds"]:
        text += f", {duration(found['train_seconds'])} on {found['machine']['cores']} cores"
    return f"<p class=soft>{escape(text)}.</p>"


def headline(run: RunFiles, found: dict[str, Any]) -> str:
    """The figures that matter most, as far as the run has them."""
    if run.question_prompt is not None:
        values = [
            (percent(found["accuracy"]), f"of questions about new {run.seen}: answered right"),
            (percent(found["accuracy_unseen"]), "of questions about things never trained on: answered right"),
        ]
    else:
        values = [
            (share(found["named_right"]), f"of new {run.seen}: the thing is named right"),
            (share(found["named_right_unseen"]), "of things never trained on: named right"),
            (share(found["exact_match"]), "of captions equal a reference word for word"),
            (number(found["cider"]), "CIDEr (0 to 10)"),
        ]
    if found["held_out_loss"] is not None:
        gap = found["shuffled_loss"] - found["held_out_loss"]
        values.append((f"{gap:+.2f}", f"nats a token: loss with wrong {run.seen} over that with the right ones"))
    if found["tokens_out"] and not run.is_of_clips:  # of a clip they depend on how its frames join
        values.append((f"{found['tokens_in']} → {found['tokens_out']}", "visual tokens"))
    return page.cards((value, name) for value, name in values if value)


def known_examples(split: str, shown: Sequence[Example]) -> str:
    """Examples of the split that the headline is about."""
    title = "Clips it never saw" if _are_clips(shown) else "Pictures it never saw"
    return _examples(title, f"{len(shown)} of {split}, drawn at random: {_what(shown)}.", shown)


def unseen_examples(split: str | None, shown: Sequence[Example]) -> str:
    """Examples of things that training never showed."""
    text = (
        f"{len(shown)} of {split}, drawn at random. Training showed none of these things: a right name comes from "
        "what the frozen models know."
    )
    return _examples("Things it never saw", text, shown)


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
        Curve(f"held-out {run.seen}", run.curve("held_out_loss")),
        Curve(f"shuffled {run.seen}", run.curve("shuffled_loss")),
    ]
    text = f"Loss on training {run.seen} (means of neighbouring steps)."
    if curves[1].points:
        text += (
            f" Loss on held-out {run.seen}, and on the same texts beside the wrong {run.seen}: the gap between these "
            "curves is what the model takes from what it sees."
        )
    chart = line_chart(curves, "optimisation steps", "loss (nats a token)")
    return page.section("Learning", text, chart and f'<figure class="chart">{chart}</figure>')


def all_scores(run: RunFiles) -> str:
    """One row a score, one column a split."""
    flat = {split: _flat(scores) for split, scores in run.scores.items()}
    rows = []
    for name in dict.fromkeys(name for scores in flat.values() for name in scores):
        if run.question_prompt is not None:
            written = percent
        else:
            written = share if name.endswith(("_right", "exact_match")) else number
        rows.append([name.replace("_", " "), *(written(scores.get(name)) for scores in flat.values())])
    counted = "captions" if run.question_prompt is None else "questions"
    rows.append([run.nouns, *(str(scores.get(counted, "")) for scores in run.scores.values())])
    return page.section("All scores", "", page.table(["", *(split.replace("_", " ") for split in flat)], rows))


def usage(run: RunFiles) -> str:
    """The command that uses these weights."""
    if not run.weights.is_file():
        return ""
    return page.section("Use it", "On pictures or clips of your own:", page.code(command_of_run(run)))


def facts(run: RunFiles, found: dict[str, Any]) -> str:
    """How the run was made, so that it can be made again."""
    measured = {
        "seconds a step": found["seconds_per_step"],
        "seconds for the frozen ViT's features": found["feature_seconds"],
        f"{run.nouns} seen": f"{found['images_seen']:,}",
        "trainable parameters": f"{found['trainable_parameters']:,}",
    }
    return how_made("The run", found, measured)


def how_made(title: str, found: dict[str, Any], measured: dict[str, Any] | None = None) -> str:
    """What it takes to make a report's runs again, and between that what was ``measured`` of them, as far as known."""

    def joined(values: dict[str, Any]) -> str:
        return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, ""))

    rows = {
        "command": found["command"],
        **(measured or {}),
        "configuration": joined({name: repr(value) for name, value in found["config"].items()}),
        "machine": joined(found["machine"]),
        "versions": joined(found["versions"]),
        "date of this page": found["date"],
    }
    return page.section(title, "", page.facts({name: value for name, value in rows.items() if value}))


def attribution(run: RunFiles) -> str:
    """Where weights and pictures come from, as far as this package brought them along."""
    model = run.config.model
    used = (about(model.get(key)) for key in ("vit_model", "llm_model", "bert_model"))
    lines = [f"{part.title}: {part.licence}; {part.installed()}." for part in used if part]
    lines += [line for notice in run.notices for line in notice.split("\n\n")]
    return "<footer>" + "".join(f"<p>{escape(line)}</p>" for line in lines) + "</footer>" if lines else ""


def _flat(scores: dict[str, Any], of: str = "") -> dict[str, float]:
    """Scores that are shares or measures, also those by type of question or by subset."""
    found: dict[str, float] = {}
    for name, value in scores.items():
        label = f"{of}{name.removeprefix('per_')}"
        if isinstance(value, dict):
            found |= _flat(value, f"{label}: ")
        elif isinstance(value, float):
            found[label] = value
    return found


def _examples(title: str, text: str, shown: Sequence[Example]) -> str:
    kind = "clips" if _are_clips(shown) else "gallery"
    return page.section(title, text, page.gallery(map(_example, shown), kind))


def _are_clips(shown: Sequence[Example]) -> bool:
    return bool(shown) and shows_clips(shown[0].dataset)


def _what(shown: Sequence[Example]) -> str:
    asked = bool(shown) and shown[0].question
    return "the question, the model's answer, then people's" if asked else "what the model wrote, then the references"


def _example(example: Example) -> str:
    picture = example.picture.copy()
    picture.thumbnail((WIDEST_STRIP if shows_clips(example.dataset) else LONGEST_SIDE, LONGEST_SIDE))
    references = "".join(f"<li>{escape(text)}</li>" for text in example.references)
    written = f"<strong>{escape(example.text) or '(nothing)'}</strong>{_marks(example)}"
    return page.figure(picture, f"{escape(example.question)}{written}<ul>{references}</ul>", example.text)


def _marks(example: Example) -> str:
    """What is right about it."""
    if example.question:
        agreement = example.agreement
        if agreement is None or 0 < agreement < 1:
            return f"{share(agreement)} right" if agreement else ""
        return "<span class=good>✓ right</span>" if agreement else "<span class=bad>✗ wrong</span>"
    marks = [MARKS[example.named_right], "<span class=good>word for word</span>" if example.word_for_word else ""]
    return ", ".join(filter(None, marks))


def share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def percent(value: float | None) -> str:
    """Of what is counted in percent already, as VQA's accuracy is."""
    return "" if value is None else f"{value:.1f} %"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

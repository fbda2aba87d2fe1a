"""The report of a comparison of video models: one page, and its figures in report.json."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from lavis_evlgen.embedded.missions import WORDINGS
from lavis_evlgen.reports import page, sections
from lavis_evlgen.reports.arms import Arm, find_arms, shared_datasets
from lavis_evlgen.reports.charts import Curve, averaged, line_chart
from lavis_evlgen.reports.figures import origin
from lavis_evlgen.reports.order import CHANCE
from lavis_evlgen.reports.strips import clip_figure, pairs

PAIRS_SHOWN = 4  # of every split
ORDER = (
    "Every episode is there twice, as it was and reversed in time, with captions of its own: only the order of the "
    "very same frames tells them apart. Order accuracy is the share of clips whose own caption is likelier to the "
    "model than that of the reverse. Chance is 50 %, and a model that does not see the order of frames is right for "
    "exactly one of the two clips."
)


def write_video_report(
    folder: str | Path, out_dir: str | Path | None = None, command: str | None = None
) -> dict[str, Any]:
    """Write report.html and report.json of the finished arms below a folder.

    Args:
        folder: holds one run folder per arm, as the video demo makes them.
        out_dir: where to write, by default to the folder.
        command: the command line of the whole, to be shown.

    Returns:
        What report.json holds: ``arms`` by name (see :meth:`lavis_evlgen.reports.arms.Arm.figures`), ``order_chance``,
        and the configuration that all arms share.

    Raises:
        DataError: no finished arm, or their evaluations or clips are missing.
    """
    arms = find_arms(folder)
    datasets = shared_datasets(arms)
    records = {split: list(dataset.records) for split, dataset in datasets.items()}
    first = arms[0].run
    found: dict[str, Any] = {
        "arms": {arm.name: arm.figures(records) for arm in arms},
        "order_chance": CHANCE,
        "clips_per_step": first.images_per_step,
        **origin(first, command),
    }
    title = f"{Path(folder).resolve().name}: {len(arms)} ways to see a clip"
    html = page.page(
        title,
        [
            f"<h1>{escape(title)}</h1>",
            _summary(found),
            page.cards(
                (sections.share(_known(each)["order_accuracy"]), f"{name}: order right") for name, each in _named(found)
            ),
            page.section("Scores", "", *(_scores(found, split) for split in datasets)),
            page.section("Order in time", ORDER, _orders(found, next(iter(datasets)))),
            _learning(arms),
            *(_clips(arms, split, dataset) for split, dataset in datasets.items()),
            page.section("Cost", "Training alone; memory is the process's peak, evaluation included.", _costs(found)),
            sections.how_made("The runs", found),
            sections.attribution(first),
        ],
    )
    page.write(Path(out_dir or folder), html, found)
    return found


def _named(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The arms by the names that the page shows."""
    return [(name.replace("_", " "), each) for name, each in found["arms"].items()]


def _known(arm: dict[str, Any]) -> dict[str, Any]:
    """The scores of the first evaluated split, that of known things."""
    return next(iter(arm["splits"].values()))


def _summary(found: dict[str, Any]) -> str:
    steps = sorted({arm["steps"] for arm in found["arms"].values()})
    text = (
        f"{len(found['arms'])} models, the same but for how they join a clip's frames, were trained on the same clips "
        f"in the same order for {' or '.join(map(str, steps))} steps of {found['clips_per_step']} clips. ViT and "
        "language model are frozen in all of them."
    )
    return f"<p class=soft>{escape(text)}</p>"


def _scores(found: dict[str, Any], split: str) -> str:
    head = [split.replace("_", " "), "order right", "verb right", "things named", "word for word", "CIDEr", "clips"]
    keys = ("order_accuracy", "verb_right", "named_right", "exact_match")
    rows = []
    for name, arm in _named(found):
        scores = arm["splits"][split]
        shares = [sections.share(scores[key]) for key in keys]
        rows.append([name, *shares, sections.number(scores["cider"]), str(scores["clips"])])
    rows.append(["chance", sections.share(found["order_chance"]), "", "", "", "", ""])
    return page.table(head, rows)


def _orders(found: dict[str, Any], split: str) -> str:
    """Order accuracy by mission and arm."""
    missions = dict.fromkeys(
        mission for arm in found["arms"].values() for mission in arm["splits"][split]["order_by_mission"]
    )
    rows = [
        [
            " / ".join(_phrases(mission)),
            *(sections.share(arm["splits"][split]["order_by_mission"].get(mission)) for _, arm in _named(found)),
        ]
        for mission in missions
    ]
    return page.table(["", *(name for name, _ in _named(found))], rows) if rows else ""


def _phrases(mission: str) -> list[str]:
    return [wording.format("…", "…") for wording in WORDINGS.get(mission, (mission,))]


def _learning(arms: list[Arm]) -> str:
    charts = []
    for key, label in (("loss", "training loss (nats a token)"), ("held_out_loss", "held-out loss (nats a token)")):
        curves = [Curve(arm.name.replace("_", " "), averaged(arm.run.curve(key), most=40)) for arm in arms]
        chart = line_chart(curves, "optimisation steps", label)
        charts.append(chart and f'<figure class="chart">{chart}</figure>')
    return page.section("Learning", "", *charts)


def _clips(arms: list[Arm], split: str, dataset: Any) -> str:
    """Episodes beside their reverses, with what every arm wrote."""
    captions = {arm.name.replace("_", " "): arm.run.texts(split) for arm in arms}
    num_frames = int(arms[0].run.config.model.get("num_frames") or 4)
    figures = []
    for index in (each for pair in pairs(dataset.records, PAIRS_SHOWN) for each in pair):
        image_id = dataset.record(index).image_id
        written = {name: found.get(image_id, "") for name, found in captions.items()}
        figures.append(clip_figure(dataset, index, written, num_frames))
    text = "Episodes, each followed by its reverse: the truth, then what the models wrote."
    return page.section(f"Clips of {split.replace('_', ' ')}", text, page.gallery(figures, "clips"))


def _costs(found: dict[str, Any]) -> str:
    head = ["", "seconds a step", "training", "peak memory", "trainable parameters", "soft prompt"]
    rows = []
    for name, arm in _named(found):
        memory = arm["peak_memory_gib"]
        rows.append([
            name,
            sections.number(arm["seconds_per_step"]),
            sections.duration(arm["train_seconds"]) if arm["train_seconds"] else "",
            "" if memory is None else f"{memory:.1f} GiB",
            f"{arm['trainable_parameters'] / 1e6:.2f} M",
            f"{arm['soft_prompt_tokens']} tokens",
        ])  # fmt: skip
    return page.table(head, rows)

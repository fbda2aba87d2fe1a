"""What the report of a comparison says, section by section, for a page and for markdown alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lavis_evlgen.reports.comparison import words
from lavis_evlgen.reports.comparison.charts import Chart, learning_charts, sweep_charts, tuning_chart
from lavis_evlgen.reports.comparison.file import Comparison
from lavis_evlgen.reports.comparison.tables import (
    Table,
    cost_table,
    quality_tables,
    sweep_table,
    time_tables,
    tuning_table,
)

Figures = dict[str, Any]
QUALITY = (
    "Means over the finished seeds ± their standard deviation. Losses are nats a token; the gap is the loss with the "
    "wrong pictures less that with the right ones: what the model takes from the picture. CIDEr goes from 0 to 10."
)
TIMES = (
    "An arm has reached another one's final quality where its curve, straight between its measurements, first comes to "
    "the value that the other had at its end with the same seed. Arms take turns on one machine, where the seconds of "
    "single steps scatter: a time is the number of steps times the median step time of the stage, all stages counted, "
    "evaluation and the choice of learning rates not. Shares of the seconds as logged stand beside. An arm's share of "
    "its own time is below 100 % where it had its final quality before its end."
)


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it, in the order of the attributes."""

    title: str
    text: str = ""
    points: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    facts: dict[str, str] = field(default_factory=dict)
    code: str = ""

    @property
    def empty(self) -> bool:
        return not (self.points or self.tables or self.charts or self.facts or self.code)


def sections(comparison: Comparison, found: Figures, *, images: bool = True) -> list[Section]:
    """Everything that can be said of a comparison, sections about what it does not have left out.

    Args:
        found: its figures, see :func:`lavis_evlgen.reports.comparison.figures`.
        images: whether losses are drawn over images too where that is the chart over steps on another scale.
    """
    every = [
        *_claims(found),
        Section("Quality at the end", QUALITY, tables=quality_tables(found)),
        Section("Training time to the same quality", TIMES, tables=time_tables(comparison, found)),
        Section("Learning", _learning_text(comparison), charts=learning_charts(comparison, images=images)),
        Section("Cost", "", tables=[cost_table(comparison, found)]),
        *_sweep(comparison, found),
        *_tuning(comparison),
        _setting(comparison, found),
    ]
    return [section for section in every if not section.empty]


def summary(comparison: Comparison, found: Figures) -> str:
    """One paragraph: what was compared, and which runs are not finished."""
    setting = comparison.setting
    frozen = " and ".join(name for name in (setting.vision, setting.language) if name)
    text = f"{len(comparison.arms)} arms, {words.seeds(len(comparison.seeds))} each"
    text += f", between the same frozen {frozen}" if frozen else ""
    text += ", trained in turns on the same data in the same order."
    missing = [(arm, each) for arm in found["arms"].values() for each in arm["unfinished"]]
    begun = [
        f"{arm['title']}, seed {each['seed']} (at step {each['steps']} of {arm['steps']})"
        for arm, each in missing
        if each["steps"]
    ]
    if begun:
        text += f" Not finished, and left out of all means: {'; '.join(begun)}."
    return f"{text} Not begun: {len(missing) - len(begun)} of the runs." if len(missing) > len(begun) else text


def _claims(found: Figures) -> list[Section]:
    titles = {True: "What agrees", False: "What does not show at this scale", None: "Not known yet"}
    return [
        Section(title, points=[each["sentence"] for each in found["verdicts"] if each["holds"] is holds])
        for holds, title in titles.items()
    ]


def _learning_text(comparison: Comparison) -> str:
    text = "Lines are means over the finished seeds, bands go from the lowest to the highest of them."
    if any(not run.finished for arm in comparison.arms for run in arm.runs):
        text += " Thin lines are runs that have not ended."
    if any(not arm.captions(number) for arm in comparison.arms for number in range(1, len(arm.stages) + 1)):
        text += " A stage with another loss than that of captions is not drawn, but its steps and time are counted."
    return text


def _sweep(comparison: Comparison, found: Figures) -> list[Section]:
    if comparison.sweep is None:
        return []
    text = "Quality and training time against one key's value, as in the paper's Figure 3; all else is equal."
    tables, charts = [sweep_table(comparison, found)], sweep_charts(comparison, found)
    return [Section(f"Sweep over {comparison.sweep.key}", text, tables=tables, charts=charts)]


def _tuning(comparison: Comparison) -> list[Section]:
    tuning = comparison.tuning
    if tuning is None:
        return []
    text = (
        f"{tuning.key} was chosen (✓) for each arm from the same values, by the {words.metric_name(tuning.metric)} on "
        f"{tuning.split} after {tuning.steps} steps."
    )
    ends = [name for name, value in tuning.chosen.items() if value in (tuning.values[0], tuning.values[-1])]
    if ends:
        text += f" At an end of the grid, beyond which there may be better: {', '.join(map(comparison.title, ends))}."
    charts = tuning_chart(comparison)
    return [Section("How the values were chosen", text, tables=[tuning_table(comparison)], charts=charts)]


def _setting(comparison: Comparison, found: Figures) -> Section:
    setting = comparison.setting
    images = [f"{number:,} {split.replace('_', ' ')}" for split, number in (setting.images or {}).items()]
    machine = [
        setting.processor,
        setting.device,
        None if setting.threads is None else f"{setting.threads} threads",
        None if setting.world_size in (None, 1) else f"{setting.world_size} processes",
        setting.precision,
    ]
    rows = {
        "data": setting.data,
        "images": ", ".join(images),
        "frozen": ", ".join(filter(None, [setting.vision, setting.language])),
        "batch": None if setting.batch_size is None else f"{setting.batch_size} images a step",
        "machine": ", ".join(filter(None, machine)),
        "seeds": ", ".join(map(str, comparison.seeds)),
        **{arm.title: ", ".join(arm.overrides) or "as the base configuration" for arm in comparison.arms},
        "versions": ", ".join(f"{name} {version}" for name, version in comparison.versions.items()),
        "date": comparison.date,
    }
    facts = {name: text for name, text in rows.items() if text}
    return Section("Setting", facts=facts, code=found.get("command") or comparison.command or "")

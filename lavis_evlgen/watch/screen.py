"""What the terminal shows: one run in full, or a table of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from lavis_evlgen.runners.verdict import COLLAPSED, LEAST_GAP
from lavis_evlgen.watch.drawing import Canvas, Points, sparkline
from lavis_evlgen.watch.run import ALIVE, Frame, WatchedRun
from lavis_evlgen.watch.words import UNKNOWN, number, share, span

COLOURS = {
    "waiting": "dim",
    "starting": "cyan",
    "running": "green",
    "evaluating": "cyan",
    "silent": "yellow",
    "dead": "red",
    "stopped": "yellow",
    "paused": "blue",
    "finished": "bold green",
}
LOSSES = (
    ("loss", "training", "cyan"),
    ("held_out_loss", "held-out", "green"),
    ("shuffled_loss", "shuffled", "magenta"),
)
CHART = (4, 12)  # lines, at least and at most
SPARK, NAME = 24, 26  # characters
MOST_WARNINGS, MOST_SCORES = 4, 6
SLOW_DATA = 0.2  # share of time
SCORES_LAST = ("skipped", "captions", "questions", "repeated_references")


def run_screen(run: WatchedRun, frame: Frame, console: Console, height: int) -> RenderableType:
    """One run in full; the chart has the lines of ``height`` that the figures leave."""
    top = [_head(frame), _progress(frame)]
    below = [_figures(run, frame), Rule(style="dim"), _outcomes(frame), *_warnings(frame)]
    curves = [(name, colour, run.state.curves[key].points()) for key, name, colour in LOSSES]
    curves = [curve for curve in curves if curve[2]]
    room = height - len(console.render_lines(Group(*top, *below))) - 2
    chart = [Chart(curves, min(room, CHART[1]))] if curves and room >= CHART[0] else []
    return Group(*top, *chart, *below)


def table_screen(frames: Sequence[Frame], root: str, height: int) -> RenderableType:
    """A line for each of several runs; those that are alive first, where not all fit into ``height`` lines."""
    shown = sorted(frames, key=lambda frame: frame.status not in ALIVE)[: max(3, height - 6)]
    names = {frame.folder: frame.folder.removeprefix(root).lstrip("/") for frame in frames}
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.add_column("run", overflow="fold", min_width=min(NAME, max(map(len, names.values()))))
    table.add_column("state", no_wrap=True)
    for name in ("step", "loss", "held-out", "gap", "best", "left", "warned"):
        table.add_column(name, justify="right", no_wrap=True)
    for frame in sorted(shown, key=lambda frame: frame.folder):
        figures = frame.figures
        table.add_row(
            names[frame.folder],
            Text(_status_text(frame, short=True), COLOURS[frame.status]),
            f"{frame.step:,}/{frame.max_iters:,}" if frame.max_iters else f"{frame.step:,}",
            *(number(figures.get(name)) for name in ("loss", "held_out_loss")),
            _gap(frame),
            number(frame.best["agg_metrics"]) if frame.best else UNKNOWN,
            span(frame.left),
            Text(str(len(frame.warnings)), "yellow" if frame.warnings else "dim"),
        )
    states = ", ".join(
        f"{count} {name}" for name in COLOURS if (count := sum(frame.status == name for frame in frames))
    )
    parts: list[RenderableType] = [Text(f"{root}: {len(frames)} runs, {states}", "bold"), table]
    if len(shown) < len(frames):
        parts.append(Text(f"and {len(frames) - len(shown)} more", "dim"))
    return Group(*parts)


@dataclass
class Chart:
    """Curves (name, colour, points) with a scale and a legend, as wide as there is room."""

    curves: Sequence[tuple[str, str, Points]]
    height: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        scale = 9
        width = max(10, options.max_width - scale - 2)
        canvas = Canvas([points for _, _, points in self.curves], width, self.height, options.ascii_only)
        dim = Style(dim=True)
        colours = [Style.parse(colour) for _, colour, _ in self.curves]
        edge = "|" if options.ascii_only else "│"
        for row, cells in enumerate(canvas.cells):
            tick = number(canvas.ticks[row]) if row in canvas.ticks else ""
            yield Segment(f"{tick:>{scale - 1}} {edge}", dim)
            for character, owner in cells:
                yield Segment(character, None if owner is None else colours[owner])
            yield Segment.line()
        first, last = (f"{round(step):,}" for step in canvas.x_range)
        legend = Text("   ".join(f"{'--' if options.ascii_only else '━━'} {name}" for name, _, _ in self.curves))
        at = 0
        for name, colour, _ in self.curves:
            legend.stylize(colour, at, at + 3 + len(name))
            at += 6 + len(name)
        room = max(1, width - len(first) - len(last) - len(legend.plain))
        line = Text.assemble(" " * (scale + 1), (first, "dim"), " " * (room // 2), legend, " " * (room - room // 2))
        yield line.append(last, "dim")


@dataclass
class Spark:
    """A sparkline that keeps to letters where the terminal knows no others."""

    points: Points
    width: int = SPARK

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(sparkline(self.points, min(self.width, options.max_width), options.ascii_only), "cyan", no_wrap=True)


def _head(frame: Frame) -> RenderableType:
    row = Table.grid(expand=True)
    row.add_column(ratio=1, overflow="fold")
    row.add_column(justify="right")
    row.add_row(Text(frame.folder, "bold"), Text(_status_text(frame), COLOURS[frame.status]))
    return row


def _status_text(frame: Frame, short: bool = False) -> str:
    age = span(frame.age)
    if frame.status == "silent":
        return f"silent {age}" if short else f"silent for {age} ({frame.why})"
    if frame.status in ("dead", "stopped") and not short:
        return f"{frame.status} {age} ago: {frame.why}" if frame.why else f"{frame.status} {age} ago"
    if frame.status in ("finished", "paused") and not short:
        return f"{frame.status} {age} ago"
    return frame.status if short or not frame.why else f"{frame.status}: {frame.why}"


def _progress(frame: Frame) -> RenderableType:
    if not frame.max_iters:
        return Text(f"step {frame.step:,}")
    row = Table.grid(expand=True, padding=(0, 2))
    row.add_column(ratio=1)
    row.add_column(justify="right", no_wrap=True)
    text = f"step {frame.step:,} of {frame.max_iters:,}, {100 * frame.step / frame.max_iters:.0f} %"
    if frame.left is not None:
        text += f", {span(frame.left)} left"
    row.add_row(ProgressBar(frame.max_iters, frame.step, complete_style="green"), text)
    return row


def _figures(run: WatchedRun, frame: Frame) -> RenderableType:
    """Figures in two columns side by side, each with its course."""
    found = frame.figures
    lines: list[tuple[str, str, RenderableType]] = [
        ("loss", "loss", number(found.get("loss"))),
        ("held-out loss", "held_out_loss", number(found.get("held_out_loss"))),
        ("gap", "gap", _gap(frame)),
        ("prompt diversity", "prompt_diversity", _diversity(found)),
        ("gradient norm", "grad_norm", number(found.get("grad_norm"))),
        ("learning rate", "lr", number(found.get("lr"))),
        ("images/s", "images_per_s", number(found.get("images_per_s"))),
        ("tokens/s", "tokens_per_s", number(found.get("tokens_per_s"))),
        ("waiting for data", "data_wait", _waiting(found)),
        ("memory, GiB", "host_memory_gib", number(found.get("host_memory_gib"))),
        ("GPU peak, GiB", "memory_gib", number(found.get("memory_gib"))),
    ]
    lines = [line for line in lines if line[1] in found]
    half = (len(lines) + 1) // 2
    table = Table.grid(expand=True, padding=(0, 1))
    for _ in range(2):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", no_wrap=True, min_width=8)
        table.add_column(ratio=1, no_wrap=True)
    for row in range(half):
        cells: list[RenderableType] = []
        for name, key, text in lines[row::half]:
            cells += [name, text, Spark(run.state.curves[key].points())]
        table.add_row(*cells)
    return table


def _outcomes(frame: Frame) -> RenderableType:
    """Validations, checkpoint, and what went wrong."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for split, record in frame.evaluations.items():
        table.add_row(split, f"step {record['iters']:,}: {_scores(record)}")
    if frame.best:
        best = frame.best
        table.add_row("best", f"step {best['iters']:,}: agg_metrics {number(best['agg_metrics'])} on {best['split']}")
    if frame.checkpoint:
        table.add_row("checkpoint", f"{frame.checkpoint['name']}, {span(frame.checkpoint['age'])} old")
    trouble = [
        (frame.nan_steps, "steps skipped (not finite)"),
        (frame.bad_samples, "bad samples"),
        (frame.damaged, "damaged lines in the log"),
        (max(0, frame.starts - 1), "restarts"),
    ]
    text = ", ".join(f"{count:,} {what}" for count, what in trouble if count)
    table.add_row("trouble", Text(text, "yellow") if text else Text("none", "green"))
    return table


def _scores(record: dict[str, Any]) -> str:
    known = {key: value for key, value in record.items() if isinstance(value, int | float) and key != "iters"}
    names = sorted(known, key=lambda name: (name != "agg_metrics", name in SCORES_LAST))
    shown = [f"{name} {number(known[name])}" for name in names[:MOST_SCORES]]
    repeated = ["repeated_captions"] if "repeated_captions" in names[MOST_SCORES:] else []
    return ", ".join([*shown, *(f"{name} {number(known[name])}" for name in repeated)])


def _warnings(frame: Frame) -> list[RenderableType]:
    if not frame.warnings:
        return []
    more = len(frame.warnings) - MOST_WARNINGS
    title = f"{len(frame.warnings)} warnings" + (f", the last {MOST_WARNINGS}" if more > 0 else "")
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(style="yellow")
    for each in frame.warnings[-MOST_WARNINGS:]:
        table.add_row(f"{each['iters']:,}", Text(each["text"]))
    return [Rule(title, style="yellow"), table]


def _gap(frame: Frame) -> RenderableType:
    gap = frame.figures.get("gap")
    if gap is None:
        return UNKNOWN
    judged = (frame.health_step or 0) >= frame.warmup
    return Text(f"{gap:.3f}", "red" if gap < LEAST_GAP and judged else "green" if judged else "")


def _diversity(found: dict[str, float]) -> RenderableType:
    value = found.get("prompt_diversity")
    return Text(number(value), "red" if value is not None and value < COLLAPSED else "")


def _waiting(found: dict[str, float]) -> RenderableType:
    value = found.get("data_wait")
    return UNKNOWN if value is None else Text(share(value), "yellow" if value > SLOW_DATA else "")

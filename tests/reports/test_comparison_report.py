"""The report of a comparison: verdicts, page, report.json and the command."""

import json
import math
import re
from html.parser import HTMLParser
from statistics import mean

import pytest
from reports.comparison_example import CLAIMS, document, swept, write

from lavis_evlgen import cli
from lavis_evlgen.reports.charts import LEFT
from lavis_evlgen.reports.comparison import words
from lavis_evlgen.reports.comparison.charts import KEYS, learning_charts, sweep_charts, sweep_places, tuning_chart
from lavis_evlgen.reports.comparison.file import read_comparison
from lavis_evlgen.reports.comparison.report import figures, write_comparison_report
from lavis_evlgen.reports.comparison.sections import sections
from lavis_evlgen.reports.comparison.tables import time_tables, tuning_table


class Outline(HTMLParser):
    """Headings, cards, rows of tables and list items of a page, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {name: [] for name in ("h1", "h2", "b", "li", "td", "th")}
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in self.texts:
            self.texts[self.open[-1]][-1] += data


def comparison_of(tmp_path, found=None):
    comparison = read_comparison(write(tmp_path, found))
    return comparison, figures(comparison)


def with_claims(*claims):
    return {**document(), "claims": list(claims)}


def sentence(tmp_path, **claim):
    _, found = comparison_of(tmp_path, with_claims(claim))
    return found["verdicts"][0]["holds"], found["verdicts"][0]["sentence"]


def test_verdicts_say_by_how_much(tmp_path):
    _, found = comparison_of(tmp_path)
    assert [each["holds"] for each in found["verdicts"]] == [True, False, True, False, None]
    assert found["verdicts"][0]["share"] == pytest.approx(mean([0.3125, 0.25, 0.34375]))
    assert found["headlines"] == [
        "EVLGen, ours reaches the final held-out loss of Q-Former in 30.2 % (25.0 to 34.4) of that arm's training "
        "time, 3 seeds (claimed: at most 45 %): holds, with 14.8 points to spare.",
        "EVLGen, ours reaches the final CIDEr of BLIP-2, two stages in none of 2 seeds so far, best 6.00 of 7.00 "
        "wanted (claimed: at most 20 %; the paper): does not hold.",
        "The final CIDEr on test of EVLGen, ours is 6.00 ± 0.00, that of Q-Former 4.17 ± 0.76, 3 seeds (claimed: "
        "higher): holds.",
        "BLIP-2, two stages reaches the final held-out loss of Q-Former in 1 of 2 seeds so far only, there in 200.0 % "
        "of that arm's training time, else best 0.900 of 0.700 wanted (claimed: at most 300 %): does not hold.",
        "EVLGen, ours and linear: cannot be judged, since linear took no part.",
    ]


def test_a_claim_is_missed_by_its_points(tmp_path):
    holds, text = sentence(tmp_path, arm="ours", of="qformer", metric="held_out_loss", share_of_time=0.25)
    assert holds is False and text.endswith("(claimed: at most 25 %): does not hold, by 5.2 points.")
    holds, text = sentence(tmp_path, arm="ours", of="qformer", metric="CIDEr", share_of_time=0.375)
    assert holds is True and text.endswith("holds, with 0.0 points to spare.")


def test_a_time_that_may_be_shorter_is_told(tmp_path):
    holds, text = sentence(tmp_path, arm="two_stage", of="qformer", metric="CIDEr", share_of_time=1.7)
    assert holds is False and text == (
        "BLIP-2, two stages reaches the final CIDEr of Q-Former in at most 175.0 % of that arm's training time, 2 "
        "seeds so far (claimed: at most 170 %): does not hold, by 5.0 points or less, since it was measured no earlier."
    )
    holds, text = sentence(tmp_path, arm="two_stage", of="qformer", metric="CIDEr", share_of_time=1.8)
    assert holds is True and text.endswith("(claimed: at most 180 %): holds, with 5.0 points to spare.")


def test_claims_on_final_values_go_by_what_is_better(tmp_path):
    holds, text = sentence(tmp_path, arm="ours", of="qformer", metric="held_out_loss")
    assert holds is True and "0.400 ± 0.000, that of Q-Former 0.833 ± 0.153, 3 seeds (claimed: lower): holds" in text
    holds, text = sentence(tmp_path, arm="ours", of="two_stage", metric="named_right")
    assert holds is False and text == (
        "The final named right on test of EVLGen, ours is 80.0 ± 0.0 %, that of BLIP-2, two stages 90.0 ± 0.0 %, 3 and "
        "2 seeds so far (claimed: higher): does not hold."
    )
    holds, text = sentence(tmp_path, arm="ours", of="qformer", metric="SPICE")
    assert holds is None and "cannot be judged on the final SPICE, which is not measured (claimed: higher)" in text


def test_an_arm_that_had_its_quality_long_before_its_end_is_told(tmp_path):
    found = document()
    for run in found["arms"][1]["runs"]:
        run["curve"][2]["held_out_loss"] = run["final"]["held_out_loss"]
    _, derived = comparison_of(tmp_path, found)
    assert derived["headlines"][0].endswith(
        "holds, with 14.8 points to spare; Q-Former itself first had it at 75 % of its time."
    )


def test_nothing_is_judged_before_a_run_has_ended(tmp_path):
    found = document()
    for arm in found["arms"]:
        for run in arm["runs"]:
            run.update(finished=False, final=None)
    comparison, derived = comparison_of(tmp_path, found)
    assert {each["holds"] for each in derived["verdicts"]} == {None}
    assert "cannot be judged on held-out loss, since no seed of both is measured to its end" in derived["headlines"][0]
    assert time_tables(comparison, derived) == []
    assert "0 of 3 seeds" not in derived["headlines"][0]
    outline = Outline(report_of(tmp_path))
    assert "Training time to the same quality" not in outline.texts["h2"] and "Learning" in outline.texts["h2"]
    assert outline.texts["b"] == ["–", "–", "not known yet", "–", "–"]
    charts = {chart.key: chart.svg for chart in learning_charts(comparison)}
    assert "Q-Former (unfinished)" in charts["loss_steps"] and "<polygon" not in charts["loss_steps"]


def test_a_comparison_that_has_only_begun_has_a_report(tmp_path):
    found = document()
    for arm in found["arms"]:
        arm["runs"] = []
        for stage in arm["stages"]:
            stage.update(
                trainable_parameters=None, soft_prompt_tokens=None, seconds_per_step=None, peak_memory_gib=None
            )
    found["tuning"] = None
    html = report_of(tmp_path, found)
    assert Outline(html).texts["h2"] == ["Not known yet", "Cost", "Setting"]
    assert "Not begun: 9 of the runs." in html and "Not finished" not in html


def report_of(tmp_path, found=None):
    write_comparison_report(tmp_path if found is None else write(tmp_path, found))
    return (tmp_path / "report.html").read_text("utf-8")


def test_the_page_has_everything_and_is_one_file(tmp_path):
    write(tmp_path)
    html = report_of(tmp_path)
    outline = Outline(html)
    assert outline.open == [] and not re.search(r"""(src|href)=["']?(https?:|/)|<script|<link""", html)
    assert outline.texts["h1"] == ["compare demo: 3 arms side by side"]
    assert outline.texts["h2"] == [
        *("What agrees", "What does not show at this scale", "Not known yet", "Quality at the end"),
        *("Training time to the same quality", "Learning", "Cost", "How the values were chosen", "Setting"),
    ]
    assert outline.texts["b"] == ["30 %", "not reached", "holds", "1 of 2 seeds", "–"]
    holds, misses = "EVLGen, ours reaches the final held-out loss", "EVLGen, ours reaches the final CIDEr"
    starts = [holds, "The final CIDEr on test", misses, "BLIP-2, two stages reaches", "EVLGen, ours and linear"]
    assert all(text.startswith(start) for text, start in zip(outline.texts["li"], starts, strict=True))
    assert html.count("<svg") == 5 and "(at step 125 of 150)" in html
    for text in ("0.833 ± 0.153", "2 of 3 seeds", "≤ 175 %", "not reached", "1 of 2 seeds: 200 %", "0.900 ✓"):
        assert text in outline.texts["td"], text


def test_the_figures_stand_beside_the_page(tmp_path):
    write(tmp_path)
    returned = write_comparison_report(tmp_path / "comparison.json", tmp_path / "out", command="mine")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found == json.loads(json.dumps(returned)) and found["command"] == "mine"
    assert list(found["arms"]) == ["ours", "qformer", "two_stage"]
    assert [claim["of"] for claim in found["verdicts"]] == [claim["of"] for claim in CLAIMS]
    assert "<code>mine</code>" in (tmp_path / "out" / "report.html").read_text()
    assert not (tmp_path / "report.json").exists()


def test_the_command_knows_a_comparison(tmp_path, capsys):
    write(tmp_path)
    assert cli.main(["report", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) == 6 and lines[0].startswith("EVLGen, ours reaches") and lines[-1] == str(tmp_path / "report.html")
    )
    (tmp_path / "comparison.json").write_text("{}")
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "is no comparison of format 1" in capsys.readouterr().err


def test_the_reference_table_says_how_near_an_arm_came(tmp_path):
    comparison, found = comparison_of(tmp_path, {**document(), "reference": "ours"})
    to_ours, pairs, *_ = time_tables(comparison, found)
    assert to_ours.head[0] == "to the final held-out loss of EVLGen, ours"
    assert to_ours.rows == [
        ["EVLGen, ours", "3 of 3 seeds", "100", "800", "1 min 40 s", "100 %", "100 %"],
        ["Q-Former", "0 of 3 seeds", "–", "–", "–", "not reached (best 0.700 of 0.400 wanted)", "–"],
        ["BLIP-2, two stages", "0 of 2 seeds", "–", "–", "–", "not reached (best 0.800 of 0.400 wanted)", "–"],
    ]
    assert pairs.rows == [
        ["EVLGen, ours", "100 %", "30 % (25 to 34)", "15 % (14 to 16)"],
        ["Q-Former", "not reached", "100 %", "48 % (45 to 50)"],
        ["BLIP-2, two stages", "not reached", "1 of 2 seeds: 200 %", "100 %"],
    ]


def test_without_claims_the_reference_is_what_counts(tmp_path):
    comparison, found = comparison_of(tmp_path, {**document(), "claims": None})
    assert found["headlines"][0] == (
        "EVLGen, ours to the final held-out loss of Q-Former: 30 % (25 to 34) of that arm's training time."
    )
    assert len(found["headlines"]) == 4 and all("of Q-Former" in line for line in found["headlines"])
    assert Outline(report_of(tmp_path)).texts["b"] == ["30 %", "200 %", "38 %", "175 %"]
    titles = [section.title for section in sections(comparison, found)]
    assert titles[0] == "Quality at the end"


def test_what_comes_from_the_file_is_escaped(tmp_path):
    found = document()
    found["arms"][0]["title"] = "<script>"
    html = report_of(tmp_path, found)
    assert "&lt;script&gt;" in html and "<script>" not in html


def points(svg: str) -> list[list[tuple[float, ...]]]:
    return [
        [tuple(map(float, point.split(","))) for point in each.split()]
        for each in re.findall(r'<polyline points="([^"]*)"', svg)
    ]


def test_learning_is_drawn_over_steps_images_and_seconds(tmp_path):
    comparison, _ = comparison_of(tmp_path)
    charts = {chart.key: chart.svg for chart in learning_charts(comparison)}
    assert list(charts) == ["loss_steps", "loss_images", "loss_seconds", "cider_seconds"]
    assert [chart.key for chart in learning_charts(comparison, images=False)] == [
        "loss_steps",
        "loss_seconds",
        "cider_seconds",
    ]
    lines = points(charts["loss_steps"])
    # ours, Q-Former, two stages over finished seeds, and the unfinished run of the last
    assert [len(line) for line in lines] == [4, 4, 2, 1]
    # the same over images, but that the axis ends elsewhere: at 1,500 in place of 150 steps of 8
    assert points(charts["loss_images"])[0] == [
        (pytest.approx(LEFT + (x - LEFT) * 8 * 150 / 1500, abs=0.1), y) for x, y in lines[0]
    ]
    # over seconds ours ends at 100 s where Q-Former is at its step 50, two stages at 400 s
    ours, qformer, two_stage, _ = points(charts["loss_seconds"])
    assert ours[-1][0] == qformer[1][0] and two_stage[-1][0] > qformer[-1][0]
    assert charts["loss_steps"].count("<polygon") == 3


def test_images_have_a_chart_of_their_own_where_batches_differ(tmp_path):
    found = document()
    for run in found["arms"][0]["runs"]:
        for point in run["curve"]:
            point["images"] *= 2
    comparison, _ = comparison_of(tmp_path, found)
    assert "loss_images" in [chart.key for chart in learning_charts(comparison, images=False)]


def test_a_sweep_is_drawn_over_its_values_or_over_tokens(tmp_path):
    comparison, found = comparison_of(tmp_path, swept())
    assert sweep_places(comparison) == ("model.tome_r", [38.0, 19.0])
    charts = {chart.key: chart.svg for chart in sweep_charts(comparison, found)}
    assert list(charts) == ["sweep_loss", "sweep_cider", "sweep_time"]
    ((left, right),) = points(charts["sweep_time"])
    assert left[0] < right[0] and left[1] < right[1]  # r = 19 took 200 s, r = 38 took 100: higher up is longer
    shown = next(each for each in sections(comparison, found) if each.title.startswith("Sweep"))
    assert shown.tables[0].rows == [
        ["38", "5 tokens", "1 min 40 s", "0.400 ± 0.000", "6.00 ± 0.00"],
        ["19", "32 tokens", "3 min 20 s", "0.833 ± 0.153", "4.17 ± 0.76"],
    ]
    lists = swept()
    lists["sweep"]["values"] = ["[128, 64]", "[19, 19]"]
    comparison, found = comparison_of(tmp_path, lists)
    assert sweep_places(comparison) == ("tokens of the soft prompt", [5.0, 32.0])
    lists["arms"][1]["stages"][0]["soft_prompt_tokens"] = 5
    comparison, found = comparison_of(tmp_path, lists)
    assert sweep_places(comparison) is None and sweep_charts(comparison, found) == []


def test_tuning_tells_what_was_tried_and_which_choice_is_at_an_end(tmp_path):
    comparison, found = comparison_of(tmp_path)
    table = tuning_table(comparison)
    assert table.head == ["", "0.0003", "0.001", "0.003"]
    assert table.rows == [
        ["EVLGen, ours", "1.200", "0.900 ✓", "1.000"],
        ["Q-Former", "0.950 ✓", "1.400", "diverged"],
    ]
    shown = next(each for each in sections(comparison, found) if each.title.startswith("How"))
    assert shown.text.endswith("At an end of the grid, beyond which there may be better: Q-Former.")
    ((first, second, third), _) = points(tuning_chart(comparison)[0].svg)
    ratio = (third[0] - second[0]) / (second[0] - first[0])
    assert ratio == pytest.approx(math.log(3) / math.log(10 / 3), abs=2e-3)  # the axis is logarithmic
    assert {chart.key for part in sections(comparison, found) for chart in part.charts} <= set(KEYS)


@pytest.mark.parametrize(
    ("metric", "name"),
    [("held_out_loss", "held-out loss"), ("Bleu_4", "BLEU-4"), ("named_right", "named right"), ("CIDEr", "CIDEr")],
)
def test_names_of_metrics(metric, name):
    assert words.metric_name(metric) == name


def test_figures_are_written_with_what_they_deserve():
    spread = {"mean": 0.41666, "sd": 0.0123, "min": 0.4, "max": 0.43, "n": 3}
    alone = {**spread, "sd": None, "n": 1}
    assert words.with_deviation("held_out_loss", spread) == "0.417 ± 0.012"
    assert words.with_deviation("CIDEr", spread) == "0.42 ± 0.01"
    assert words.with_deviation("named_right", spread) == "41.7 ± 1.2 %"
    assert words.with_deviation("named_right", alone) == "41.7 %" and words.with_deviation("CIDEr", None) == "–"
    assert words.with_range(spread, 100, 0, " %") == "42 % (40 to 43)"
    assert words.with_range({"mean": 62.5, "min": 62.5, "max": 62.5}, decimals=1) == "62.5"
    assert (words.seconds(7.25), words.seconds(125), words.seconds(None)) == ("7.2 s", "2 min 5 s", "–")
    assert (words.percent(0.45), words.percent(0.075), words.seeds(1)) == ("45 %", "7.5 %", "1 seed")

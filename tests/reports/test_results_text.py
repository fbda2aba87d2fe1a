"""The generated parts of docs/results.md: written from the kept comparisons, and in step with them."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from reports.comparison_example import document, swept, write

from lavis_evlgen.errors import DataError
from lavis_evlgen.reports.comparison.file import read_comparison
from lavis_evlgen.reports.comparison.report import figures
from lavis_evlgen.reports.comparison.text import compact
from lavis_evlgen.reports.results_text import (
    add_comparison,
    main,
    out_of_step,
    results_files,
    write_results,
)

DOCS = Path(__file__).parents[2] / "docs"
BEFORE, BETWEEN, AFTER = "# Results\n\nBy hand.\n\n", "\n\nBetween: a | b, *c*.\n\n", "\n\n## The end\n"


def markers(name):
    return f"<!-- begin: comparison {name} -->\n<!-- end: comparison {name} -->"


@pytest.fixture
def docs(tmp_path):
    """A page with places for two comparisons, which are kept beside it."""
    folder = tmp_path / "docs"
    for name, found in (("compare_demo", document()), ("sweep-r", swept())):
        add_comparison(write(tmp_path / name, {**found, "name": name}), folder / "results")
    page = BEFORE + markers("compare_demo") + BETWEEN + markers("sweep-r") + AFTER
    (folder / "results.md").write_text(page)
    return folder


def write_docs(docs):
    return write_results(docs / "results.md", docs / "results")


def test_the_page_of_this_repository_is_in_step():
    kept = sorted(path.stem for path in (DOCS / "results").glob("*.json"))
    assert out_of_step(results_files(DOCS / "results.md", DOCS / "results")) == []
    print(f"comparisons in docs/results: {', '.join(kept) or 'none, so that there is nothing to be out of step'}")


def test_only_what_stands_between_markers_is_written(docs):
    changed = write_docs(docs)
    text = (docs / "results.md").read_text()
    assert text.startswith(f"{BEFORE}<!-- begin: comparison compare_demo -->\n\n3 arms, 3 seeds each")
    assert f"<!-- end: comparison compare_demo -->{BETWEEN}<!-- begin: comparison sweep-r -->\n" in text
    assert text.endswith(f"<!-- end: comparison sweep-r -->{AFTER}")
    assert docs / "results.md" in changed and len(changed) == 1 + 4 + 6
    assert write_docs(docs) == []
    assert (docs / "results.md").read_text() == text


def test_the_text_has_sentences_tables_and_pictures_that_are_there(docs):
    write_docs(docs)
    text = (docs / "results.md").read_text()
    demo, sweep = (part.split("<!-- end")[0] for part in text.split("<!-- begin")[1:])
    agrees = demo.split("### What agrees")[1].split("###")[0]
    assert "- EVLGen, ours reaches the final held-out loss of Q-Former in 30.2 % (25.0 to 34.4)" in agrees
    missing = demo.split("### What does not show at this scale")[1].split("###")[0]
    assert "best 6.00 of 7.00 wanted (claimed: at most 20 %; the paper): does not hold." in missing
    assert "| Q-Former | 3 of 3 seeds | 0.833 ± 0.153 | 2.333 ± 0.153 | 1.500 ± 0.000 |" in demo
    assert "| 38 | 5 tokens | 1 min 40 s | 0.400 ± 0.000 | 6.00 ± 0.00 |" in sweep and "### What" not in sweep
    assert "- data: 30 things \\| one a picture" in demo and "model.tome\\_r" not in demo
    assert "```sh\npython -m lavis_evlgen.cli compare --cfg-path projects/blip2/compare_demo.yaml\n```" in demo
    linked = re.findall(r"!\[[^\]]+\]\((.+?)\)", text)
    assert sorted(linked) == sorted(path.relative_to(docs).as_posix() for path in docs.glob("results/*.svg"))
    for path in linked:
        assert ElementTree.fromstring((docs / path).read_text()).tag == "{http://www.w3.org/2000/svg}svg"


def test_every_table_is_one_to_markdown(docs):
    markdown = pytest.importorskip("markdown")
    write_docs(docs)
    html = markdown.markdown((docs / "results.md").read_text(), extensions=["tables", "fenced_code"])
    tables = [ElementTree.fromstring(each) for each in re.findall(r"<table>.*?</table>", html, flags=re.DOTALL)]
    assert len(tables) == 9 + 9
    for table in tables:
        widths = {len(list(row)) for row in table.iter("tr")}
        assert len(widths) == 1
    assert html.count("<img ") == 4 + 6


def test_check_says_what_is_out_of_step_and_writes_nothing(docs, capsys):
    command = ["--page", str(docs / "results.md"), "--check"]
    assert main(command) == 1
    assert "out of step" in capsys.readouterr().out and not list(docs.glob("results/*.svg"))
    assert main(command[:2]) == 0 and main(command) == 0
    assert capsys.readouterr().out.endswith(f"{docs / 'results.md'} is in step with {docs / 'results'}\n")
    chart = docs / "results" / "compare_demo_loss_steps.svg"
    chart.write_text("<svg/>")
    assert main(command) == 1 and str(chart) in capsys.readouterr().out


def test_a_changed_figure_and_a_text_changed_by_hand_are_both_noticed(docs):
    write_docs(docs)
    page, kept = docs / "results.md", docs / "results" / "compare_demo.json"
    text = page.read_text()
    page.write_text(text.replace("0.833 ± 0.153", "0.333 ± 0.153"))
    assert out_of_step(results_files(page, docs / "results")) == [page]
    page.write_text(text)
    kept.write_text(kept.read_text().replace('"CIDEr": 7.0', '"CIDEr": 7.5'))
    assert out_of_step(results_files(page, docs / "results")) == [
        docs / "results" / "compare_demo_cider_seconds.svg",
        page,
    ]


def test_charts_that_are_no_longer_made_go_and_other_pictures_stay(docs):
    write_docs(docs)
    (docs / "results" / "by_hand.svg").write_text("<svg/>")
    found = json.loads((docs / "results" / "compare_demo.json").read_text())
    (docs / "results" / "compare_demo.json").write_text(compact({**found, "tuning": None}))
    assert docs / "results" / "compare_demo_tuning.svg" in write_docs(docs)
    assert not (docs / "results" / "compare_demo_tuning.svg").exists() and (docs / "results" / "by_hand.svg").exists()
    assert write_docs(docs) == []


def test_a_kept_comparison_is_short_and_means_the_same(tmp_path):
    found = document()
    found["arms"][0]["runs"][0]["curve"][0]["held_out_loss"] = 1.23456789
    kept = add_comparison(write(tmp_path, found), tmp_path / "results")
    text = kept.read_text()
    assert kept.name == "compare_demo.json" and '"held_out_loss": 1.2346,' in text
    assert max(map(len, text.splitlines())) < 200 and 3 * text.count("\n") < json.dumps(found, indent=1).count("\n")
    assert add_comparison(kept, tmp_path / "again").read_text() == text
    whole, short = (figures(read_comparison(path)) for path in (tmp_path, kept))
    assert short["verdicts"][0]["share"] == pytest.approx(whole["verdicts"][0]["share"], rel=1e-4)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (BEFORE, "compare_demo.json has no place in"),
        (markers("compare_demo") + "\n" + markers("sweep-r") + "\n" + markers("third"), "third.json is missing"),
        (markers("compare_demo") + "\n" + markers("compare_demo"), "two places for the comparison compare_demo"),
        ("<!-- begin: comparison sweep-r -->\n", "of the comparison sweep-r are not a begin followed by its end"),
        ("<!-- end: comparison sweep-r -->\n", "of the comparison sweep-r are not a begin"),
        ("<!-- begin: comparison a -->\n" + markers("b") + "\n<!-- end: comparison a -->", "comparison a are not"),
    ],
)
def test_markers_and_comparisons_must_belong_together(docs, page, message):
    (docs / "results.md").write_text(page)
    with pytest.raises(DataError, match=re.escape(message)):
        write_docs(docs)
    assert (docs / "results.md").read_text() == page


def test_errors_of_the_command_say_the_way_out(docs, tmp_path, capsys):
    page = docs / "results.md"
    page.write_text(BEFORE)
    assert main(["--page", str(page)]) == 2
    assert "put these two lines where it belongs\n" + markers("compare_demo") in capsys.readouterr().err
    assert main(["--page", str(tmp_path / "none.md")]) == 2
    assert "name the page with --page" in capsys.readouterr().err
    assert main(["--page", str(page), "--add", str(tmp_path)]) == 2
    assert "comparison.json cannot be read" in capsys.readouterr().err
    write(tmp_path / "odd", {**document(), "name": "../odd"})
    assert main(["--page", str(page), "--add", str(tmp_path / "odd")]) == 2
    assert "its name '../odd' must be made of letters" in capsys.readouterr().err


def test_the_folder_may_be_elsewhere(docs, tmp_path):
    (docs / "results").rename(tmp_path / "kept")
    assert main(["--page", str(docs / "results.md"), "--folder", str(tmp_path / "kept")]) == 0
    assert "](../kept/compare_demo_loss_steps.svg)" in (docs / "results.md").read_text()


def test_a_page_without_comparisons_is_left_alone(tmp_path):
    page = tmp_path / "results.md"
    page.write_text(BEFORE)
    assert write_results(page, tmp_path / "results") == [] and page.read_text() == BEFORE

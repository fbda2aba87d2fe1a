"""The notebooks of examples/ ran in order as they stand, say nothing of the machine, and their links lead somewhere."""

import re

import execute
import nbformat
import pytest

ROOT = execute.FOLDER.parent
TOPICS = [
    *("caption_and_ask", "elip_in_lavis_blip", "evlgen_beside_blip2"),
    *("train_on_your_own_pictures", "video", "what_tokens_become"),
]
named = pytest.mark.parametrize("path", execute.notebooks(), ids=lambda path: path.stem)


def test_every_topic_has_its_notebook():
    assert [path.stem for path in execute.notebooks()] == TOPICS
    assert not [path for path in execute.FOLDER.iterdir() if path.name not in KEPT]


KEPT = {*(f"{topic}.ipynb" for topic in TOPICS), "execute.py", "__pycache__", "outputs", ".ipynb_checkpoints"}


@named
def test_without_faults(path):
    assert execute.faults(nbformat.read(path, as_version=4)) == []


@named
def test_links_and_commands(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert links and not [link for link in links if not (path.parent / link).is_file()]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"`make ([\w-]+)`", text)) <= set(targets)


@named
def test_only_figures_of_this_machine_are_said_to_vary(path):
    cells = nbformat.read(path, as_version=4).cells
    assert {tag for cell in cells for tag in cell.metadata.get("tags", [])} <= {execute.VARIES}
    assert any(execute.printed(nbformat.read(path, as_version=4)).values())


@pytest.mark.slow
@named
def test_executed_again(path, tmp_path):
    """The same text again, but where a cell says that it varies; nothing is left beside the notebooks."""
    before = sorted(execute.FOLDER.iterdir())
    again = execute.execute(path, tmp_path).notebook
    assert execute.faults(again) == []
    assert execute.printed(again) == execute.printed(nbformat.read(path, as_version=4))
    assert sorted(execute.FOLDER.iterdir()) == before

"""What the pages tell people to do works: their blocks run, or are checked where a marker says that they cannot."""

import ast
import importlib
import re
import shutil

import pytest
import shell
from omegaconf import OmegaConf
from pages import LANGUAGES, NEEDS, OTHERS, PAGES, ROOT, Block, blocks, name, prose
from workplace import make_workplace

from lavis_evlgen.cli import build_parser
from lavis_evlgen.comparison.plan import read_plan
from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.configuration.read import read_config

CLI = "python -m lavis_evlgen.cli"
MODEL = {"arch": "evlgen", "model_type": "demo"}
RUN = {"task": "captioning", "max_iters": 100, "health_freq": 50, "valid_splits": ["val"]}
REST = {
    "model": MODEL,
    "datasets": {"image_caption": {}},
    "run": RUN,
}  # of a yaml that shows a part


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, tiny_config, parity_dir):
    folder = tmp_path_factory.mktemp("prepared")
    make_workplace(folder, tiny_config("any"), parity_dir)
    return folder


@pytest.fixture
def workplace(prepared, tmp_path, monkeypatch):
    """The working directory, as a reader has it."""
    folder = tmp_path / "workplace"
    shutil.copytree(prepared, folder, symlinks=True)
    monkeypatch.chdir(folder)


def test_pages_are_found():
    found = {name(page) for page in PAGES}
    assert {"README.md", "docs/index.md", "docs/results/README.md", "projects/evlgen/README.md"} <= found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_markers(page):
    for block in blocks(page):
        assert block.language in (*LANGUAGES, *OTHERS), f"```{block.language} is no language that the tests know"
        assert set(block.needs) <= set(NEEDS), block.needs
        for test in block.run_by:
            path, _, function = test.partition("::")
            assert (ROOT / path).is_file(), test
            assert function in (ROOT / path).read_text(), test


WITH_BLOCKS = [page for page in PAGES if any(block.language in LANGUAGES for block in blocks(page))]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name)
def test_blocks(page, workplace, tiny_config):
    names: dict = {}
    for block in blocks(page):
        if block.language == "sh":
            for words in shell.commands(block.text):
                shell.check(words)
                if block.runs:
                    shell.run(words, tiny_config("any"))
        elif block.language == "yaml":
            check_yaml(block)
        elif block.language == "python":
            code = compile(block.text, name(page), "exec")
            exec(code, names) if block.runs else check_python(block.text)


def check_yaml(block: Block) -> None:
    """The configuration is accepted, with what a part leaves out; it stays under the name in its first line."""
    written = OmegaConf.create(block.text)
    path = match[1] if (match := re.match(r"# (\S+\.yaml)\n", block.text)) else "shown.yaml"
    OmegaConf.save(OmegaConf.merge({key: REST[key] for key in REST if key not in written}, written), path)
    if "compare" in written:
        for arm in read_plan(path).arms:
            for stage in arm.stages:
                check_config(stage.config)
    else:
        check_config(read_config(path, []))


def check_python(text: str) -> None:
    """It compiles, and what it imports is there."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, each.name) for each in node.names), ast.unparse(node)
        elif isinstance(node, ast.Import):
            for each in node.names:
                importlib.import_module(each.name)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_the_text(page):
    """``make demo``, ``python -m lavis_evlgen.cli cost --cfg-path FILE`` and the like in a sentence or table exist."""
    known = {f"{way} {name}" for way in ("evlgen", CLI) for name in [*dict(build_parser().commands), "COMMAND"]}
    for command in re.findall(rf"`((?:make|evlgen|{CLI}) [^`…]*)`", prose(page)):
        if command not in known:  # with options
            (words,) = shell.commands(command)
            shell.check(words)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_exist(page):
    """Links to files from the page's own folder, and files that the text names from the repository's."""
    text = prose(page)
    links = re.findall(r"\]\(([^)#:\s]+)[^):]*\)", text)
    missing = [link for link in links if not (page.parent / link).exists() and link not in GENERATED]
    named = re.findall(r"`((?:lavis|lavis_evlgen|projects|configs|docs|tests|benchmarks)/[\w./-]+\.\w+)`", text)
    assert not missing and not [path for path in named if not (ROOT / path).exists()]


GENERATED = ("command_line.md",)  # written when the site is built


def test_commands_stand_in_blocks_that_are_looked_at():
    """None is hidden in an indented block."""
    for page in PAGES:
        assert not re.search(r"^    (?:python|\.venv|make|evlgen|torchrun) ", prose(page), flags=re.MULTILINE), page


def test_a_block_that_is_wrong_fails(workplace, tmp_path):
    """The checks above can fail."""
    with pytest.raises(SystemExit):
        shell.check(["python", "-m", "lavis_evlgen.cli", "caption", "--beams", "3", "x.png"])
    with pytest.raises(AssertionError):
        shell.check(["make", "coffee"])
    with pytest.raises(AssertionError):
        shell.check(["python", "-m", "lavis_evlgen.cli", "cost", "--cfg-path", "projects/gone.yaml"])
    with pytest.raises(ValueError, match=r"run\.max_iter is unknown"):
        check_yaml(Block("yaml", "run: {task: captioning, max_iter: 3}"))
    with pytest.raises(AssertionError):
        check_python("from lavis_evlgen import load_a_model")
    page = tmp_path / "page.md"
    page.write_text("<!-- need: gpu -->\n```sh\nmake demo\n```\n")
    with pytest.raises(ValueError, match="is none of"):
        blocks(page)

"""Three commands from a clone to a caption and a page."""

import re
import subprocess
import sys
import urllib.request

import pytest
import shell
from pages import ROOT, blocks
from PIL import Image

from lavis_evlgen import cli

COMMANDS = [
    ["make", "setup"],
    [".venv/bin/python", "-m", "lavis_evlgen.cli", "caption", "pictures/dog.jpg"],
    [".venv/bin/python", "-m", "lavis_evlgen.cli", "serve"],
]


@pytest.mark.parametrize("page", ["docs/index.md", "docs/quick_start.md"])
def test_pages_name_the_same_three(page):
    assert shell.commands(next(block.text for block in blocks(ROOT / page) if block.language == "sh")) == COMMANDS


def test_setup_has_something_to_do():
    steps = subprocess.run(["make", "-n", "-B", "setup"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-m venv .venv" in steps and "requirements.lock" in steps and "-e ." in steps


def test_a_caption(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    Image.effect_noise((300, 200), 80).convert("RGB").save("pictures/dog.jpg")
    assert cli.main(COMMANDS[1][3:]) == 0
    assert re.fullmatch(r"pictures/dog\.jpg: \S.*\n", capsys.readouterr().out)


@pytest.mark.slow
def test_a_page():
    command = [sys.executable, "-u", "-m", "lavis_evlgen.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            said = iter(server.stdout.readline, "")
            address = next(found[0] for line in said if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
            with urllib.request.urlopen(address, timeout=60) as answer:
                assert answer.status == 200 and "<html" in answer.read().decode().lower()
        finally:
            server.terminate()

"""docs/configuration.md lists every key that a configuration may have."""

import re

import pytest
from pages import ROOT

from lavis_evlgen.models.config import ModelConfig
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.tasks.captioning import CaptioningTask
from lavis_evlgen.tasks.question_answering import QuestionAnsweringTask
from lavis_evlgen.tasks.self_critical import SelfCriticalTask

PAGE = (ROOT / "docs" / "configuration.md").read_text()
TASKS = {key for task in (CaptioningTask, SelfCriticalTask) for key in task.RUN_KEYS}


def listed(page: str, section: str) -> set[str]:
    """Keys in the first column of a section's tables, and those that its text names."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)[1]
    return set(re.findall(r"`([a-z_0-9]+)`", text))


@pytest.mark.parametrize(("section", "keys"), [("model", ModelConfig.keys()), ("run", RunSettings.keys() | TASKS)])
def test_every_key_is_listed(section, keys):
    assert keys - listed(PAGE, section) == set()


def test_keys_of_questions_are_listed_on_their_page():
    questions = (ROOT / "docs" / "questions.md").read_text()
    own = set(QuestionAnsweringTask.RUN_KEYS) - {"evaluate"}
    assert own - set(re.findall(r"`([a-z_]+)`", questions)) == set()


def test_a_key_that_is_not_there_would_be_noticed():
    assert "tome_r" in listed(PAGE, "model") and "tome_rr" not in listed(PAGE, "model")

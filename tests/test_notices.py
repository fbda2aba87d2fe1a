"""CITATION.cff, CHANGELOG.md and THIRD_PARTY.md say what is so."""

import importlib.metadata
import re
from datetime import date
from pathlib import Path

import yaml

import lavis_evlgen

ROOT = Path(__file__).parent.parent
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
REFERENCE_TYPES = {"article", "conference-paper", "software"}


def test_citation_has_the_schemas_keys():
    """Citation File Format 1.2.0: what it requires, and the form of what it does not."""
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    assert all(isinstance(CITATION[key], str) and CITATION[key] for key in ("message", "title", "abstract"))
    assert CITATION["license"] == "BSD-3-Clause" and len(set(CITATION["keywords"])) == len(CITATION["keywords"])
    assert date.fromisoformat(CITATION["date-released"])
    allowed = {"cff-version", "message", "type", "title", "version", "date-released", "license", "authors", "abstract"}
    assert set(CITATION) == allowed | {"keywords", "references"}
    assert [set(author) for author in CITATION["authors"]] == [{"name"}]
    for reference in CITATION["references"]:
        assert {"type", "title", "authors"} <= set(reference) and reference["type"] in REFERENCE_TYPES
        assert all(set(author) == {"family-names", "given-names"} for author in reference["authors"])
        assert reference["url"].startswith("https://")


def test_the_papers_are_those_of_the_two_methods():
    evlgen, elip = CITATION["references"]
    assert evlgen["title"].startswith("Expedited Training of Visual Conditioned Language Generation")
    assert (evlgen["year"], evlgen["doi"]) == (2024, "10.18653/v1/2024.acl-long.19")
    assert re.fullmatch(r"10\.\d{4,9}(\.\d+)?/\S+", evlgen["doi"])
    assert elip["title"].startswith("ELIP:") and elip["identifiers"] == [{"type": "other", "value": "arXiv:2309.16738"}]


def test_the_version_is_the_same_everywhere():
    changes = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert changes[0] == (lavis_evlgen.__version__, CITATION["date-released"])
    assert str(CITATION["version"]) == lavis_evlgen.__version__ == importlib.metadata.version("lavis_evlgen")


def test_licences_of_what_the_embedded_parts_come_from():
    """What the table says is what the installed packages state of themselves."""
    text = (ROOT / "THIRD_PARTY.md").read_text()
    rows = re.findall(r"^\| ([a-z][\w-]+) \| ([\d.]+) \| (\S+) \|", text, re.MULTILINE)
    assert len(rows) == 7
    for name, version, licence in rows:
        metadata = importlib.metadata.metadata(name)
        stated = [metadata["License"] or "", *(metadata.get_all("Classifier") or [])]
        word = {"Apache-2.0": "Apache", "BSD-3-Clause": "3-Clause BSD"}.get(licence, licence)
        assert metadata["Version"] == version and any(word in each for each in stated), name

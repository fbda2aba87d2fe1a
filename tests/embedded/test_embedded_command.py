"""The command ``python -m lavis_evlgen.embedded``."""

import inspect
import json

import pytest

from lavis_evlgen.embedded import pictures
from lavis_evlgen.embedded.__main__ import main, parser

FEW = ["--things", "12", "--train", "12", "--val", "0", "--test", "6", "--unseen", "0", "--image-size", "48"]


def test_it_draws_what_is_asked_for(tmp_path, capsys):
    out = tmp_path / "data"
    assert main(["--only", "pictures", "--out", str(out), "--two-things", "0.5", *FEW]) == 0
    assert capsys.readouterr().out == f"pictures: {out}\n"
    assert json.loads((out / "spec.json").read_text())["pictures"] == {"train": 12, "test": 6}
    assert sorted(p.name for p in out.iterdir()) == [
        "ATTRIBUTION.txt", "spec.json", "test", "test.jsonl", "train", "train.jsonl"
    ]  # fmt: skip


def test_errors_are_told_in_one_line(tmp_path, capsys):
    assert main(["--only", "pictures", "--out", str(tmp_path / "data"), "--two-things", "3"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: two_things=3.0") and error.count("\n") == 1


def test_defaults_are_those_of_build():
    options = vars(parser().parse_args([]))
    for name, parameter in inspect.signature(pictures.build).parameters.items():
        if name != "out":
            assert options[name] == parameter.default and type(options[name]) is type(parameter.default)


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    text = capsys.readouterr().out
    assert exit_.value.code == 0 and "CC BY-SA" in text
    assert all(f"--{name.replace('_', '-')}" in text for name in inspect.signature(pictures.build).parameters)

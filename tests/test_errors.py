"""What is said of an error in one line."""

import pytest

from lavis_evlgen.errors import DataError, first_line, one_line


@pytest.mark.parametrize(
    ("error", "line", "with_kind"),
    [
        (
            DataError("a.json: line 3 is no record"),
            "a.json: line 3 is no record",
            "DataError: a.json: line 3 is no record",
        ),
        (RuntimeError("\n  first \n second"), "first", "RuntimeError: first"),
        (KeyError("x"), "'x'", "KeyError: 'x'"),
        (KeyboardInterrupt(), "KeyboardInterrupt", "KeyboardInterrupt"),
        (ValueError(" \n"), "ValueError", "ValueError"),
    ],
)
def test_an_error_in_one_line(error, line, with_kind):
    assert first_line(error) == line and one_line(error) == with_kind

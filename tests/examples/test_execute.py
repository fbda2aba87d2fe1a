"""What executes the notebooks keeps those that run through, leaves others alone, and sees what is wrong with one."""

import socket

import execute
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

PICTURE = "import matplotlib.pyplot as plt\n\nplt.plot([1, 2])\nplt.show()"


def write(path, *sources):
    cells = [new_markdown_cell("# A title"), *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def good():
    """A notebook as one looks that was executed."""
    cell = new_code_cell("print(1)", execution_count=1)
    cell.outputs = [
        new_output("stream", name="stdout", text="1\n"),
        new_output("display_data", data={"image/png": "aGVsbG8="}),
    ]
    notebook = new_notebook(cells=[new_markdown_cell("# A title"), cell])
    return execute.cleaned(notebook)


def test_a_notebook_is_executed_and_kept(tmp_path, capfd):
    code = """from pathlib import Path

print("a", end="")
print("b", flush=True)
Path("left.txt").write_text("x")
object()"""
    path = write(tmp_path / "small.ipynb", code, PICTURE)
    assert execute.main([str(path)]) == 0
    notebook = nbformat.read(path, as_version=4)
    first, second = notebook.cells[1:]
    assert [output.get("text") or output.data for output in first.outputs] == ["ab\n", {"text/plain": "<object>"}]
    assert list(second.outputs[0].data) == ["image/png"] and (first.execution_count, second.execution_count) == (1, 2)
    assert set(notebook.metadata) == {"kernelspec", "language_info", "executed"}
    assert [each.name for each in tmp_path.iterdir()] == ["small.ipynb"]
    out, err = capfd.readouterr()
    assert out.startswith("small.ipynb: ") and "s of processor time" in out and not err


def test_a_notebook_that_fails_stays_as_it_is(tmp_path, capfd):
    path = write(tmp_path / "broken.ipynb", "print('first')", "1 / 0")
    before = path.read_bytes()
    assert execute.main([str(path)]) == 1
    assert path.read_bytes() == before
    assert "broken.ipynb: not kept" in (err := capfd.readouterr().err) and "ZeroDivisionError" in err


def test_paths_that_are_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit):
        execute.main([str(tmp_path / "gone.ipynb")])
    assert "gone.ipynb does not exist" in capsys.readouterr().err


def test_a_good_notebook_has_no_faults():
    assert execute.faults(good()) == []
    assert execute.printed(good()) == {1: ["1\n"]}


def changed(notebook, **changes):
    for name, value in changes.items():
        setattr(notebook.cells[1], name, value)
    return notebook


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"source": "print(2)"}, "the code was changed after it was run"),
        ({"execution_count": 2}, "code cell 1 was not executed in its turn"),
        ({"outputs": []}, "it shows no picture"),
        ({"outputs": [new_output("error", ename="KeyError", evalue="'x'")]}, "code cell 1: KeyError: 'x'"),
        ({"outputs": [new_output("stream", name="stderr", text="beware")]}, "code cell 1: wrote to stderr: beware"),
        ({"outputs": [new_output("stream", name="stdout", text="in /home/me/x")]}, "absolute path '/home/me/x"),
        ({"outputs": [new_output("stream", name="stdout", text="x" * 400_000)]}, "bytes, more than 400000"),
        ({"execution_count": "one"}, "no valid notebook"),
    ],
)
def test_faults_are_seen(changes, fault):
    assert any(each.startswith(fault) or each.endswith(fault) for each in execute.faults(changed(good(), **changes)))


def test_the_name_of_the_machine_is_a_fault(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "my-laptop")
    notebook = changed(good(), outputs=[new_output("stream", name="stdout", text="on my-laptop")])
    assert "the name of this machine" in execute.faults(notebook)


def test_text_that_varies_is_not_compared():
    notebook = good()
    notebook.cells[1].metadata["tags"] = [execute.VARIES]
    assert execute.printed(notebook) == {}

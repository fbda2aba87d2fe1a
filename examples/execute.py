"""Execute the notebooks of this folder and keep what they print: ``make notebooks``.

    python examples/execute.py [NAME.ipynb ...] [--out DIR]

Each one runs in a new, empty folder without a network. The result replaces the notebook (or goes to DIR), less what
would differ from run to run for no reason; where a cell fails or the result has faults, the notebook stays as it is.
Prints the wall and processor seconds of each and its size.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from traitlets.config import Config

FOLDER = Path(__file__).resolve().parent
VARIES = "varies"  # tag of cells whose text is not the same on every machine: timings, figures of a training
LARGEST = 400_000  # bytes of a notebook
CELL_SECONDS = 1800  # on a busy machine
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_ABSOLUTE = re.compile(r"(?<![\w.:/-])/(?:home|root|tmp|work|opt|usr|var|mnt|Users)/\S*")


@dataclass(frozen=True)
class Executed:
    """A notebook after execution; wall seconds, and processor seconds of its kernel and the kernel's children."""

    notebook: Any
    seconds: float
    processor_seconds: float


def notebooks() -> list[Path]:
    """All notebooks of this folder."""
    return sorted(FOLDER.glob("*.ipynb"))


def execute(path: Path, folder: Path) -> Executed:
    """Run all cells with ``folder`` as working directory.

    Raises:
        CellControlSignal, DeadKernelError: a cell fails or takes too long, or the kernel dies.
    """
    notebook = nbformat.read(path, as_version=4)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as own:
        sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{own}/kernel"}})  # files, no ports
        client = NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", config=sockets)
        with client.setup_kernel(env=_environment(own), cwd=str(folder)):
            kernel = psutil.Process(client.km.provisioner.pid)
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
            used = kernel.cpu_times()
    processor_seconds = used.user + used.system + used.children_user + used.children_system
    return Executed(cleaned(notebook), time.perf_counter() - began, processor_seconds)


def _environment(settings: str) -> dict[str, str]:
    """Other settings than the user's own, no progress bars, and no way out: proxies that nobody answers."""
    places = dict.fromkeys(("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"), settings)
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    quiet = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **places, **nowhere, **quiet}


def cleaned(notebook: Any) -> Any:
    """The notebook without times and ids of objects, and with a digest of the code that was run."""
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {})
        if cell.cell_type == "code":
            cell.outputs = _joined([_plain(output) for output in cell.outputs])
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"},
            "language_info": {"name": "python"},
            "executed": digest(notebook),
        }
    )
    return notebook


def _plain(output: Any) -> Any:
    if output.output_type in ("display_data", "execute_result"):
        output.metadata = nbformat.from_dict({})
        kinds = ["image/png"] if "image/png" in output.data else ["text/html", "text/markdown", "text/plain"]
        kept = {kind: _ADDRESS.sub("", output.data[kind]) for kind in kinds if kind in output.data}
        output.data = nbformat.from_dict(kept)
    return output


def _joined(outputs: list[Any]) -> list[Any]:
    """Pieces of one stream together: where they were cut is chance."""
    found: list[Any] = []
    for output in outputs:
        last = found[-1] if found else None
        if last and output.output_type == "stream" == last.output_type and output.name == last.name:
            last.text += output.text
        else:
            found.append(output)
    return found


def digest(notebook: Any) -> str:
    """A short hash of the code: tells whether it was changed after it was run."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()[:16]


def faults(notebook: Any) -> list[str]:
    """What is wrong with a notebook that is to be committed; empty when all is well."""
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [f"no valid notebook: {error.message}"]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = [
        f"code cell {number} was not executed in its turn"
        for number, cell in enumerate(cells, start=1)
        if cell.execution_count != number
    ]
    if notebook.metadata.get("executed") != digest(notebook):
        found.append("the code was changed after it was run: make notebooks")
    if not cells or notebook.cells[0].cell_type != "markdown":
        found.append("it must begin with a cell of text, and have cells of code")
    for number, cell in enumerate(cells, start=1):
        found += [f"code cell {number}: {fault}" for output in cell.outputs for fault in _output_faults(output)]
    if not any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs):
        found.append("it shows no picture")
    text = nbformat.writes(_without_pictures(notebook))
    found += [f"absolute path {path!r}" for path in _ABSOLUTE.findall(text)]
    if len(socket.gethostname()) > 3 and socket.gethostname() in text:
        found.append("the name of this machine")
    size = len(nbformat.writes(notebook))
    return found + ([f"{size} bytes, more than {LARGEST}"] if size > LARGEST else [])


def _output_faults(output: Any) -> list[str]:
    if output.output_type == "error":
        return [f"{output.ename}: {output.evalue}"]
    if output.output_type == "stream" and output.name == "stderr":
        return [f"wrote to stderr: {output.text.strip()[:200]}"]
    return []


def _without_pictures(notebook: Any) -> Any:
    """A copy whose pictures, long lines of letters and slashes, are left out."""
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)
    return copy


def printed(notebook: Any) -> dict[int, list[str]]:
    """The text that each code cell (from 1) put out, those left out that are tagged `VARIES`."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {
        number: [_text(output) for output in cell.outputs if _text(output)]
        for number, cell in enumerate(cells, start=1)
        if VARIES not in cell.metadata.get("tags", [])
    }


def _text(output: Any) -> str:
    return output.get("text") or output.get("data", {}).get("text/plain", "")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="execute notebooks and keep what they print")
    parser.add_argument("paths", nargs="*", type=Path, metavar="NAME.ipynb", help="default: all of this folder")
    parser.add_argument("--out", type=Path, metavar="DIR", help="a folder to write to (default: in place)")
    args = parser.parse_args(argv)
    for missing in (each for each in [*args.paths, args.out] if each and not each.exists()):
        parser.error(f"{missing} does not exist")
    kept = [keep(path, args.out or path.parent) for path in args.paths or notebooks()]
    return 0 if all(kept) else 1


def keep(path: Path, out: Path) -> bool:
    """Execute a notebook and write it to ``out``; False, with the reason on stderr, where it is not fit to be kept."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            executed = execute(path, Path(folder))
        found = faults(executed.notebook)
    except (CellControlSignal, DeadKernelError) as error:
        found = [str(error)]
    if found:
        print(f"{path.name}: not kept", *found, sep="\n  ", file=sys.stderr, flush=True)
        return False
    target = out / path.name
    nbformat.write(executed.notebook, target)
    times = f"{executed.seconds:.0f} s, {executed.processor_seconds:.0f} s of processor time"
    print(f"{path.name}: {times}, {target.stat().st_size // 1000} KB", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())

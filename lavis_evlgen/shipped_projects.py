"""The run configurations that come with the package, and copies of them to change."""

from __future__ import annotations

import re
from pathlib import Path

from lavis_evlgen.errors import ConfigError, nearest
from lavis_evlgen.paths import packaged_folder


def project_names() -> dict[str, str]:
    """What the first sentence of each configuration says, by its name, for example ``evlgen/pretrain_opt2.7b``."""
    root = packaged_folder("projects")
    files = sorted(root.glob("*/*.yaml"))
    return {str(path.relative_to(root).with_suffix("")): _first_sentence(path.read_text()) for path in files}


def copy_project(name: str, out: Path | None = None, overwrite: bool = False) -> Path:
    """Write a configuration to ``out``, else to ``projects/NAME.yaml``, and return where it is.

    Its first line is the command that runs it; there the repository's launchers become modules, which work anywhere.

    Raises:
        ConfigError: no configuration has this name, or the file is there already or cannot be written.
    """
    known = project_names()
    name = name.removeprefix("projects/").removesuffix(".yaml")
    if name not in known:
        raise ConfigError(f"there is no project {name!r}{nearest(name, known)}")
    out = out or Path("projects", f"{name}.yaml")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out}: this file exists; name another one with --out, or add --overwrite")
    command, rest = (packaged_folder("projects") / f"{name}.yaml").read_text().split("\n", 1)
    command = re.sub(r"\blavis/(train|evaluate)\.py", r"-m lavis_evlgen.\1", command)
    command = command.replace(f"projects/{name}.yaml", str(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(f"{command}\n{rest}")
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written ({error.strerror})") from error
    return out


def _first_sentence(text: str) -> str:
    """Of the comment below the command, up to its first full stop."""
    comment = []
    for line in text.splitlines()[1:]:
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    return re.split(r"\.(?=\s+[A-Z`]|$)", " ".join(comment).strip())[0]

"""The site has the repository's files that pages link to, at the places that they have in the repository.

A page may link to what lies outside docs/ as on a forge that shows the repository: ``../projects/evlgen/README.md``. A
Markdown file becomes a page, with its own links, anything else is copied.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()([^)\s#:]+)")  # the path of [text](path#anchor); addresses have a colon


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that a page links to, and those that they link to."""
    root, docs = Path(config.config_file_path).parent, Path(config.docs_dir)
    waiting = [_in_repository(file.src_uri, docs, root) for file in files.documentation_pages() if file.abs_src_path]
    while waiting:
        page = waiting.pop()
        for path in _linked(page, (root / page).read_text()):
            uri = _in_site(path, docs, root)
            if files.get_file_from_path(uri) is None and uri == path and (root / path).is_file():
                files.append(File.generated(config, uri, abs_src_path=str(root / path)))
                if path.endswith(".md"):
                    waiting.append(path)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between repository files become links between files of the site."""
    root, docs = Path(config.config_file_path).parent, Path(config.docs_dir)
    here = page.file.src_uri
    from_repository = _in_repository(here, docs, root)

    def in_site(link: re.Match[str]) -> str:
        path = _resolve(from_repository, link[1])
        uri = _in_site(path, docs, root)
        return posixpath.relpath(uri, posixpath.dirname(here) or ".") if (root / path).is_file() else link[1]

    return LINK.sub(in_site, markdown)


def _in_repository(uri: str, docs: Path, root: Path) -> str:
    """The repository's path of a file of the site."""
    return (docs / uri).relative_to(root).as_posix() if (docs / uri).is_file() else uri


def _in_site(path: str, docs: Path, root: Path) -> str:
    """The site's path of a file of the repository."""
    file = root / path
    return file.relative_to(docs).as_posix() if file.is_relative_to(docs) else path


def _resolve(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _linked(page: str, text: str) -> Iterator[str]:
    """Repository paths that a page links to."""
    return (_resolve(page, link) for link in LINK.findall(text))

"""The site: built without a warning, whole, and read without fetching anything from elsewhere."""

import functools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from chromium import dumped, needs_chromium
from pages import PAGES, ROOT, name

from lavis_evlgen.cli import build_parser

LOADED = re.compile(
    r"""<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=["']?(https?:)?//[^"'>\s]+|@import|url\(["']?(?:https?:)?//"""
)


def test_it_is_built_without_a_warning(site):
    _, warnings = site
    assert warnings == []


def test_every_page_is_there(site):
    folder, _ = site
    for page in PAGES:
        place = name(page).removeprefix("docs/").replace("README.md", "index.html").replace(".md", ".html")
        if page.parent != ROOT:
            assert (folder / place).is_file(), place


def test_every_link_within_leads_to_a_file(site):
    folder, _ = site
    missing, seen = [], 0
    for page in folder.rglob("*.html"):
        if page.name == "404.html":  # its links are the server's
            continue
        for link in re.findall(r'href="([^"#?:]+)[#?"]', page.read_text()):
            seen += 1
            if not (page.parent / link).exists():
                missing.append(f"{page.name}: {link}")
    assert seen > 1000 and not missing


def test_nothing_is_loaded_from_elsewhere(site):
    folder, _ = site
    files = [path for path in folder.rglob("*") if path.suffix in (".html", ".css")]
    assert len(files) > 25
    assert {path.name: LOADED.search(path.read_text())[0] for path in files if LOADED.search(path.read_text())} == {}
    assert LOADED.search('<script src="https://unpkg.com/x"></script>') and LOADED.search("src: url(//fonts.x/y)")


def test_lists_are_lists(site):
    """Markdown needs an empty line before a list, where forges do not."""
    folder, _ = site
    for path in folder.rglob("*.html"):
        for paragraph in re.findall(r"<p>(.*?)</p>", path.read_text(), flags=re.DOTALL):
            assert not re.search(r"\n(?:- |\d+\. |\|)", paragraph), (path.name, paragraph[:200])


def test_the_command_line_page_has_every_option(site):
    folder, _ = site
    page = (folder / "command_line.html").read_text()
    for command, parser in build_parser().commands:
        section = re.search(rf'<h2 id="{command}">.*?(?=<h2 |</article>)', page, flags=re.DOTALL)
        assert section, command
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", parser.format_usage())) - {"--help"}
        assert options <= set(re.findall(r"--[a-z][a-z-]+", section[0])), command


def test_the_python_page_has_the_public_names(site):
    folder, _ = site
    page = (folder / "api.html").read_text()
    names = ["loading.load_model_and_preprocess", "models.evlgen.EVLGen.generate", "token_reduction.Reduction.then"]
    names += ["runners.settings.RunSettings", "metrics.captions.score_captions", "tasks.captioning.CaptioningTask"]
    for each in names:
        assert f'id="lavis_evlgen.{each}"' in page, each
    assert ":meth:" not in page and ":class:" not in page


def test_the_picture_of_the_path_is_what_the_script_draws(tmp_path):
    drawn = {"__file__": str(tmp_path / "draw_path.py"), "__name__": "__main__"}
    exec((ROOT / "docs/images/draw_path.py").read_text(), drawn)
    for each in ("path_light.svg", "path_dark.svg"):
        assert (tmp_path / each).read_text() == (ROOT / "docs/images" / each).read_text()


class Server(SimpleHTTPRequestHandler):
    """Serves files, from which the browser may load no others; a page that tries has a message on the console."""

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline' data:")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@needs_chromium
@pytest.mark.parametrize("page", ["index.html", "how_it_works.html", "api.html"])
def test_a_browser_has_nothing_to_complain_about(site, tmp_path, page):
    with served(site[0]) as address:
        content, messages = dumped(f"{address}/{page}", tmp_path, 3000)
    assert "md-content__inner" in content and messages == []


@needs_chromium
def test_the_browser_complains_about_files_from_elsewhere(tmp_path):
    (tmp_path / "page.html").write_text("<p>here</p><script src='https://fonts.example/x.js'></script>")
    with served(tmp_path) as address:
        content, messages = dumped(f"{address}/page.html", tmp_path, 3000)
    assert "here" in content and len(messages) == 1 and "https://fonts.example/x.js" in messages[0]

"""The page in a browser: what a visitor does and then sees."""

import io
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from chromium import needs_chromium
from page.browser import Browser
from page.conftest import tokens_by_layer
from PIL import Image
from video_files import write_clip

from lavis_evlgen.page.examples import COUNT, examples
from lavis_evlgen.page.served import budgets

pytestmark = needs_chromium
WIDE, NARROW = 1280, 390
FIRST = "document.querySelectorAll('.panel')[0]"
SECOND = "document.querySelectorAll('.panel')[1]"
MAP = ".querySelector('canvas').toDataURL()"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser") / "profile")
    yield browser
    browser.close()


@pytest.fixture
def page(tab, server):
    """The page as it opens; at the end the console must have nothing to complain about."""
    tab.errors.clear()
    tab.requests.clear()
    tab.open(server.address, WIDE)
    tab.until("document.querySelectorAll('.panel').length === 2 && !!document.querySelector('input[type=file]')")
    yield tab
    assert tab.errors == []
    elsewhere = [each for each in tab.requests if not each.startswith((server.address, "data:", "blob:"))]
    assert elsewhere == [], "the page asks nobody but its own server"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "<b>dog&.png"
    Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 50).convert("RGB").save(path)
    return path


def upload(page, path) -> None:
    page.choose_file("input[type=file]", path)


def caption(page, panel=FIRST, other_than="") -> str:
    """The caption of a panel as soon as it has one, and is not asking for another."""
    text = f"{panel}.querySelector('.caption').textContent"
    done = f"{panel}.matches(':not(.asking-caption)') && !!{panel}.querySelector('canvas') && {text} !== {other_than!r}"
    page.until(done)
    return page.run(text)


def table(page, panel=FIRST) -> list[list[str]]:
    cells = "[...row.querySelectorAll('td')].map(cell => cell.textContent)"
    return page.run(f"[...{panel}.querySelectorAll('.tried tr')].slice(1).map(row => {cells})")


def numbers(page, panel=FIRST) -> list[str]:
    return page.run(f"[...{panel}.querySelectorAll('.numbers b')].map(each => each.textContent)")


def test_a_picture_its_caption_and_its_tokens(page, picture, captioner):
    """The whole way: upload, caption, layers, budget, question, and the second model."""
    read = captioner.read(picture.read_bytes(), "").result()
    image, other, _ = captioner.served
    expected = captioner.ask(read).result()
    upload(page, picture)
    assert caption(page) == expected.text
    assert page.run("document.querySelector('.drop span').textContent") == "<b>dog&.png", "a name is text"
    tokens, see, write = numbers(page)
    assert tokens == str(expected.tokens) and see.endswith(" ms") and write.endswith(" ms")

    counts = tokens_by_layer(image, image.trained_tokens)[1:]
    slider = f"{FIRST}.querySelector('.bar input')"
    assert page.run(f"{slider}.max") == str(len(counts) - 1) == page.run(f"{slider}.value")
    last = page.run(FIRST + MAP)
    page.run(f"{slider}.value = 0, {slider}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    assert page.run(f"{FIRST}.querySelector('.count').textContent") == f"layer 1: {counts[0]} tokens"
    first = page.run(FIRST + MAP)
    assert first != last, "another layer is another map"
    page.run(
        f"(() => {{ const canvas = {FIRST}.querySelector('canvas'), box = canvas.getBoundingClientRect();"
        " const at = {pointerType: 'mouse', bubbles: true, clientX: box.left + 9, clientY: box.top + 9};"
        " canvas.dispatchEvent(new PointerEvent('pointermove', at)); })()"
    )
    assert page.run(f"{FIRST}.querySelector('.said').textContent").startswith("as loaded: token ")
    assert page.run(FIRST + MAP) != first, "the token under the pointer is lit"

    page.run(f"{FIRST}.querySelector('.q-slider__track-container').focus()")
    choices = budgets(image)
    place = choices.index(image.trained_tokens)
    page.press("ArrowRight")
    fewer = captioner.ask(read, tokens=choices[place + 1]).result()
    page.until(f"{FIRST}.querySelector('.numbers b').textContent === '{choices[place + 1]}'")
    assert caption(page) == fewer.text
    rows = [[str(each.tokens), each.text] for each in (expected, fewer)]
    assert [row[:2] for row in table(page)] == sorted(rows, key=lambda row: int(row[0]))
    assert page.run(f"{FIRST}.querySelector('.count').textContent").startswith("layer 1: "), "the layer stays"

    page.run("document.querySelector('.ask input').focus()")
    page.call("Input.insertText", text="what is it?")
    page.press("Enter")
    page.until(f"!!{FIRST}.querySelector('.answer')")
    answer = captioner.ask(read, tokens=choices[place + 1], question="what is it?").result().text
    assert page.run(f"{FIRST}.querySelector('.answer').textContent") == answer

    second = captioner.ask(read, other.name).result().text
    assert caption(page, SECOND) == second != expected.text, "beside it is the other model, with its own budget"


def test_what_cannot_be_read_is_said_and_the_page_goes_on(page, picture, tmp_path):
    problem = "document.querySelector('.given .problem').textContent"
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:300])
    upload(page, broken)
    page.until(f"{problem}.startsWith('broken.png: the picture cannot be read: ')")
    large = tmp_path / "large.png"
    large.write_bytes(bytes(2_000_001))
    upload(page, large)
    page.until(f"{problem}.startsWith('This file was not taken. Pictures (JPEG')")
    text = tmp_path / "text.txt"
    text.write_text("no picture")
    page.run("document.querySelector('.ask button').click()")
    page.until(f"{problem}.startsWith('Upload a picture first')")
    upload(page, text)
    page.until(f"{problem}.startsWith('This file was not taken')")
    upload(page, picture)
    assert caption(page) and page.run(problem) == ""
    page.run("document.querySelectorAll('.examples button')[0].click()")
    page.until("document.querySelector('.drop span').textContent.startsWith('drawn: ')")
    upload(page, picture)
    page.until("document.querySelector('.drop span').textContent === '<b>dog&.png'")


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_file_is_dropped(page, picture, captioner, width):
    page.resize(width)
    page.drop_file(".drop", picture)
    assert caption(page) == captioner.ask(captioner.read(picture.read_bytes(), "").result()).result().text
    assert page.run("document.querySelector('.drop span').textContent") == picture.name
    assert page.run("document.querySelector('.drop').className") == "drop", "no longer marked as a place to drop at"


def test_a_picture_is_pasted(page, captioner):
    """As a screenshot that was copied: a file without a name of its own."""
    page.run(
        "new Promise(done => { const canvas = document.createElement('canvas');"
        " canvas.getContext('2d').fillRect(9, 9, 50, 50); canvas.toBlob(blob => {"
        " const clipboardData = new DataTransfer();"
        " clipboardData.items.add(new File([blob], 'image.png', {type: 'image/png'}));"
        " document.dispatchEvent(new ClipboardEvent('paste', {clipboardData, bubbles: true})); done(); }); })"
    )
    assert caption(page)
    assert page.run("document.querySelector('.drop span').textContent") == "image.png"


@pytest.mark.parametrize(("name", "codec"), [("clip.mp4", "libx264"), ("clip.webm", "libvpx-vp9")])
def test_a_clip_is_captioned_by_its_middle_frame(page, tmp_path, captioner, name, codec):
    # in a process of its own: decord, which `import lavis` loads, brings an old libvpx that takes the place of PyAV's
    with ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:
        clip = elsewhere.submit(write_clip, tmp_path / name, 9, codec).result()
    upload(page, clip)
    expected = captioner.ask(captioner.read(clip.read_bytes(), "").result()).result().text
    assert caption(page) == expected
    assert "the clip's middle frame" in page.run(f"{FIRST}.textContent")
    assert page.run("document.querySelector('.drop span').textContent") == f"{name}, middle frame"


def test_an_example_and_the_second_model_off(page, captioner):
    drawn = examples()
    assert len(drawn) == COUNT and drawn[0].text.startswith("a ")
    page.run("document.querySelector('.q-toggle').click()")
    page.until(f"{SECOND}.offsetParent === null")
    page.run("document.querySelectorAll('.examples button')[1].click()")
    data = io.BytesIO()
    drawn[1].picture.save(data, "PNG")
    assert caption(page) == captioner.ask(captioner.read(data.getvalue(), "").result()).result().text
    assert page.run("document.querySelector('.drop span').textContent") == f"drawn: {drawn[1].text}"
    assert "OpenMoji" in page.run("document.body.textContent")


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_it_fits(page, picture, tmp_path, width):
    page.resize(width)
    upload(page, picture)
    caption(page)
    caption(page, SECOND)
    assert page.run("document.documentElement.scrollWidth") <= width
    boxes = json.loads(
        page.run(
            "JSON.stringify([...document.querySelectorAll('.panel, .drop, canvas, .examples')].map(each =>"
            " { const box = each.getBoundingClientRect(); return [box.left, box.right]; }))"
        )
    )
    assert all(0 <= left < right <= width for left, right in boxes)
    page.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        assert shot.width == width and np.asarray(shot.convert("L")).std() > 10

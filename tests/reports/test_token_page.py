"""The page of token maps: what it says, what its script is given, and that the script works."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from chromium import dumped, needs_chromium
from PIL import Image

from lavis_evlgen.reports.tokens.map import NO_TOKEN, colour
from lavis_evlgen.reports.tokens.page import token_page
from lavis_evlgen.reports.tokens.states import AFTER, BEFORE, Layer, Shown

EARLY, LATE, OTHER = [[0, 0, 1], [2, 3, 3]], [[4, 4, 4], [5, 4, 5]], [[6, 6, 7], [6, 7, 7]]


def shown(path: str = "a/dog.png", frames: int = 1, own: int = 1, **states: list) -> Shown:
    """A picture or clip of 2 x 3 patches; maps by state and layer."""
    layers = {
        state.replace("_", " "): [Layer(f"layer {n}", 8, np.array([ids] * own)) for n, ids in enumerate(maps, start=1)]
        for state, maps in states.items()
    }
    pictures = [Image.new("RGB", (60, 40), (90, 30 * number, 200)) for number in range(frames)]
    return Shown(path, pictures, {}, 8, "how frames join" if frames > 1 else "", states=layers)


BOTH = {"before_training": [EARLY, OTHER], "after_training": [EARLY, LATE]}


class Tags(HTMLParser):
    """Tags with their attributes, text by tag, and whether every tag is closed in its turn."""

    VOID = ("meta", "img", "input")

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def named(self, name: str) -> list[dict]:
        return [attrs for tag, attrs in self.tags if tag == name]

    def text(self, tag: str) -> list[str]:
        return [text for of, text in self.texts if of == tag and text.strip()]


def data_of(tags: Tags) -> dict:
    return json.loads(tags.text("script")[0])


def test_the_script_is_given_the_maps():
    page = Tags(token_page([shown(**BOTH)], {}))
    (file,) = data_of(page)["files"]
    assert (file["rows"], file["columns"], file["shared"]) == (2, 3, True)
    assert [each["state"] for each in file["maps"]] == [BEFORE, AFTER]
    assert [layer["ids"] for layer in file["maps"][0]["layers"]] == [np.ravel(EARLY).tolist(), np.ravel(OTHER).tolist()]
    last = file["maps"][1]["layers"][1]
    red, green = ("#{:02x}{:02x}{:02x}".format(*colour(rank)) for rank in (0, 1))
    assert last == {
        "name": "layer 2",
        "count": 8,
        "ids": [4, 4, 4, 5, 4, 5],
        "tokens": {"4": [red, 1], "5": [green, 2]},
    }


def test_every_frame_stands_beside_its_maps():
    clip = shown("clip.mp4", frames=2, own=2, **BOTH)
    page = Tags(token_page([shown(before_training=[EARLY] * 2, after_training=[LATE] * 2), clip], {}))
    assert page.text("h2")[:2] == ["a/dog.png", "clip.mp4"] and "how frames join" in page.text("p")
    stages = [(each["data-map"], each["data-frame"]) for each in page.named("canvas")]
    assert stages == [("0", "0"), ("1", "0"), ("0", "0"), ("2", "0"), ("1", "1"), ("3", "1")]
    maps = data_of(page)["files"][1]["maps"]
    assert [(each["state"], each["frame"]) for each in maps] == [(BEFORE, 1), (BEFORE, 2), (AFTER, 1), (AFTER, 2)]
    assert [each["alt"] for each in page.named("img")] == ["picture", "frame 1", "frame 2"]
    assert all(each["src"].startswith("data:image/jpeg;base64,") for each in page.named("img"))
    shared = Tags(token_page([shown("clip.mp4", frames=2, **BOTH)], {}))
    assert [each["data-map"] for each in shared.named("canvas")] == ["0", "1", "0", "1"]
    assert len([each for each in shared.named("span") if each.get("class") == "tokens"]) == 2, "once for every map"


def test_the_page_says_the_figures():
    html = token_page([shown(**BOTH)], {"model": "tiny <one>", "before training": "seed 42"})
    page = Tags(html)
    cells = page.text("td")
    # sizes 2 1 1 2 in layer 1; then 3 3 before, in one piece each, and 4 2 after, the second in two
    assert cells[:8] == ["layer 1", "8", "2 → 2", "1.5 → 1.5", "2 → 2", "2 → 2", "2 → 2", "1.00"]
    assert cells[8:15] == ["layer 2", "8", "3 → 4", "3 → 3", "0 → 0", "2 → 2", "2 → 1"]
    assert "tiny <one>" in cells and "seed 42" in cells and "8 → 8" in page.text("b")
    alone = Tags(token_page([shown(as_loaded=[LATE])], {}))
    assert alone.text("td")[:7] == ["layer 1", "8", "4", "3", "0", "2", "1"]
    assert not alone.named("input"), "no slider for one layer"
    assert page.named("input") == [{"type": "range", "id": "layer", "min": "0", "max": "1", "value": "1"}]


def test_means_over_several_pictures():
    states = [{"as_loaded": [EARLY]}, {"as_loaded": [[[0, 0, 0], [0, NO_TOKEN, 1]]]}]
    page = Tags(token_page([shown(**each) for each in states], {}))
    assert "patches left out" in page.text("th") and page.text("h2")[2] == "Means of all 2"
    # largest 2 and 4, median 1.5 and 2.5, single patches 2 and 1, of several patches 2 and 1, left out 0 and 1
    assert page.text("td")[-8:] == ["layer 1", "8", "3", "2", "1.5", "1.5", "1.5", "0.5"]


def test_the_page_needs_nothing_but_itself():
    html = token_page([shown("</script><b>&.png", **BOTH)], {})
    page = Tags(html)
    assert page.text("h2")[0] == "</script><b>&.png"
    assert not re.search(r"https?:|//\w|@import|url\(", re.sub(r'"data:image[^"]*"', "", html))
    assert not page.named("link") and all("src" not in each for each in page.named("script"))
    assert len(page.named("script")) == 2


def test_the_pictures_attribution_is_shown(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "ATTRIBUTION.txt").write_text("Drawn by <hand>.\n\nFree.")
    page = Tags(token_page([shown(str(tmp_path / "test" / name), **BOTH) for name in ("1.png", "2.png")], {}))
    assert page.text("p")[-2:] == ["Drawn by <hand>.", "Free."]


# what a reader does, and what the page says then
DEEDS = """
const said = () => document.querySelector(".said").textContent, log = [];
const [first, second] = document.querySelectorAll("canvas"), slider = document.getElementById("layer");
const point = (canvas, type, column, row) => {
  const box = canvas.getBoundingClientRect();
  const at = { clientX: box.left + (column + 0.5) * box.width / 3, clientY: box.top + (row + 0.5) * box.height / 2 };
  canvas.dispatchEvent(new PointerEvent(type, { ...at, pointerType: "mouse", bubbles: true }));
  log.push(said());
};
const press = (canvas, key) => {
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  log.push(said());
};
const pixel = (canvas, column, row) => {
  const [x, y] = [(column + 0.5) * canvas.width / 3, (row + 0.5) * canvas.height / 2];
  log.push([...canvas.getContext("2d").getImageData(x, y, 1, 1).data.slice(0, 3)].join(" "));
};
pixel(second, 0, 1);
point(first, "pointermove", 2, 1);
pixel(second, 0, 1);
pixel(second, 1, 1);
point(first, "pointerleave", 2, 1);
point(second, "click", 0, 0);
point(second, "pointermove", 2, 1);
slider.value = 0;
slider.dispatchEvent(new Event("input"));
log.push(said(), document.querySelector("output").textContent, document.querySelector(".count").textContent);
press(document, "Escape");
for (const key of ["ArrowDown", "ArrowDown", "ArrowRight", "Enter"]) press(first, key);
const button = document.querySelectorAll(".tokens")[1].children[0];
press(document, "Escape");
button.click();
log.push(button.textContent, button.getAttribute("aria-label"), button.getAttribute("aria-pressed"), said());
"""


def done_in_a_browser(html: str, deeds: str, folder: Path) -> list[str]:
    """What `deeds` wrote to `log` on a page in Chromium."""
    script = (
        '<script>addEventListener("load", () => setTimeout(() => { let text; try {'
        f"{deeds} text = JSON.stringify(log); }} catch (error) {{ text = String(error); }}"
        'document.body.innerHTML = "<pre></pre>"; document.querySelector("pre").textContent = text; }, 500));</script>'
    )
    (folder / "page.html").write_text(html.replace("</main>", script + "</main>"))
    content, _ = dumped((folder / "page.html").as_uri(), folder, 4000)
    return json.loads(Tags(content).text("pre")[0])


@needs_chromium
def test_only_the_own_frame_lights_up_where_tokens_are_its_own(tmp_path):
    html = token_page([shown("clip.mp4", frames=2, own=2, **BOTH)], {})
    deeds = (
        'const log = [], of_second = document.querySelectorAll("canvas")[2], box = of_second.getBoundingClientRect();'
        'of_second.dispatchEvent(new PointerEvent("click", { clientX: box.left + 2, clientY: box.top + 2 }));'
        'log.push(document.querySelector(".said").textContent);'
    )
    assert done_in_a_browser(html, deeds, tmp_path) == [
        "frame 2, before training: token 6, 3 patches in one piece · "
        "frame 2, after training: token 4, 4 patches in one piece"
    ]


@needs_chromium
def test_the_script_in_a_browser(tmp_path):
    log = done_in_a_browser(token_page([shown(**BOTH)], {}), DEEDS, tmp_path)
    plain = (90, 0, 200)
    tinted = [round(0.55 * old + 0.45 * new) for old, new in zip(plain, colour(1), strict=True)]
    near = [int(value) for value in log[0].split()]
    assert np.abs(np.array(near) - tinted).max() < 5
    assert log[1] == (
        "before training: token 7, 3 patches in one piece · after training: token 5, 2 patches in 2 pieces"
    )
    assert np.abs(np.array([int(value) for value in log[2].split()]) - plain).max() < 5, "lit: as it is"
    assert np.abs(np.array([int(value) for value in log[3].split()]) - 0.28 * np.array(plain)).max() < 5, "dimmed"
    held = "before training: token 6, 3 patches in one piece · after training: token 4, 4 patches in one piece"
    assert log[4:7] == ["", held, held]
    first_layer = "before training: token 0, 2 patches in one piece · after training: token 0, 2 patches in one piece"
    assert log[7:11] == [first_layer, "layer 1 of 2", "layer 1: 8 tokens", ""]
    alone = "before training: token 2, this patch alone · after training: token 2, this patch alone"
    right = "before training: token 3, 2 patches in one piece · after training: token 3, 2 patches in one piece"
    assert log[11:15] == [first_layer, alone, right, right] and log[15] == ""
    one = "after training: token 0, 2 patches in one piece"
    assert log[16:] == ["2", one, "true", one]


def test_patches_of_no_token_are_given_as_such():
    page = Tags(token_page([shown(as_loaded=[[[0, 0, NO_TOKEN], [1, NO_TOKEN, 2]]])], {}))
    assert data_of(page)["files"][0]["maps"][0]["layers"][0]["ids"] == [0, 0, NO_TOKEN, 1, NO_TOKEN, 2]

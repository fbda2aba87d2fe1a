"""The look of token pages, and the script that draws their maps."""

STYLE = """
.bar { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center;
  padding: 10px 0; background: var(--ground); border-bottom: 1px solid var(--line); }
.bar input { flex: 1 1 160px; max-width: 420px; accent-color: var(--accent); }
.maps-of { display: grid; gap: 14px; margin: 14px 0;
  grid-template-columns: repeat(auto-fit, minmax(min(240px, 100%), 1fr)); align-items: start; }
.maps-of figure { max-width: 480px; }
canvas { display: block; width: 100%; cursor: crosshair; touch-action: manipulation; }
canvas:focus-visible, button:focus-visible { outline: 3px solid var(--accent); outline-offset: -3px; }
.tokens { display: flex; flex-wrap: wrap; gap: 4px; margin-top: 8px; max-height: 118px; overflow-y: auto; }
.tokens button { font: inherit; color: inherit; background: none; border: 1px solid var(--line); border-radius: 6px;
  border-left: 10px solid var(--of); padding: 0 7px; cursor: pointer; }
.tokens button:hover, .tokens button[aria-pressed=true] { border-color: var(--of); }
.shown h2 { overflow-wrap: anywhere; }
.said { min-height: 1.6em; }
"""

# `showTokenMaps` brings the maps within a document, or within an element of one, to life: what `page.maps_html` wrote.
# All of them show the same layer. `spot` is what is lit in a file's maps: the token of a patch, in some of them.
SCRIPT = """
"use strict";
function showTokenMaps(root) {
const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
const slider = root.querySelector("input[type=range]");
const layerOf = map => map.layers[slider ? Number(slider.value) : 0];
const LEFT_OUT = -1, SINGLE = "#969696", PIXELS = 672;

function sizeOf(layer, token) { return layer.ids.filter(each => each === token).length; }

function inWords(map, patch) {
  const layer = layerOf(map), token = layer.ids[patch], size = sizeOf(layer, token);
  const where = map.frame ? `frame ${map.frame}, ${map.state}` : map.state;
  if (token === LEFT_OUT) return `${where}: part of no token`;
  if (size === 1) return `${where}: token ${token}, this patch alone`;
  const pieces = layer.tokens[token][1];
  return `${where}: token ${token}, ${size} patches in ${pieces === 1 ? "one piece" : pieces + " pieces"}`;
}

function prepare(section, file) {
  const images = section.querySelectorAll("img");
  const said = section.querySelector(".said");
  const stages = [...section.querySelectorAll("canvas")].map(canvas => ({
    canvas, map: file.maps[canvas.dataset.map], frame: canvas.dataset.frame, image: images[canvas.dataset.frame],
    count: canvas.parentNode.querySelector(".count"), list: canvas.parentNode.querySelector(".tokens"),
  }));
  const cell = Math.ceil(PIXELS / Math.max(file.rows, file.columns));
  let spot = null;

  function draw(stage) {
    const { canvas, image } = stage, layer = layerOf(stage.map), pen = canvas.getContext("2d");
    const lit = spot && spot.stages.includes(stage) ? layer.ids[spot.patch] : null;
    canvas.width = file.columns * cell;
    canvas.height = file.rows * cell;
    if (image.complete) pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    layer.ids.forEach((token, patch) => {
      const row = Math.floor(patch / file.columns), column = patch % file.columns, x = column * cell, y = row * cell;
      const colour = layer.tokens[token] ? layer.tokens[token][0] : SINGLE;
      const dark = lit === null ? token === LEFT_OUT : token !== lit;
      if (dark || (lit === null && layer.tokens[token])) {
        pen.globalAlpha = dark ? data.shade : data.tint;
        pen.fillStyle = dark ? "black" : colour;
        pen.fillRect(x, y, cell, cell);
        pen.globalAlpha = 1;
      }
      if (lit !== null && dark) return;
      pen.fillStyle = lit === null ? colour : "white";
      const other = (down, right) => {
        const r = row + down, c = column + right;
        return r >= 0 && r < file.rows && c >= 0 && c < file.columns && layer.ids[r * file.columns + c] !== token;
      };
      if (other(-1, 0)) pen.fillRect(x, y, cell, 3);
      if (other(1, 0)) pen.fillRect(x, y + cell - 3, cell, 3);
      if (other(0, -1)) pen.fillRect(x, y, 3, cell);
      if (other(0, 1)) pen.fillRect(x + cell - 3, y, 3, cell);
    });
    if (spot && canvas.matches(":focus-visible")) {
      pen.strokeStyle = "#ffd43b";
      pen.lineWidth = 4;
      pen.strokeRect(spot.patch % file.columns * cell + 4, Math.floor(spot.patch / file.columns) * cell + 4,
        cell - 8, cell - 8);
    }
  }

  function list(stage) {
    const layer = layerOf(stage.map);
    stage.count.textContent = `${layer.name}: ${layer.count} tokens`;
    if (!stage.list) return;
    const alike = stages.filter(each => each.map === stage.map);
    const sizes = Object.keys(layer.tokens).map(Number).map(token => [token, sizeOf(layer, token)]);
    stage.list.replaceChildren(...sizes.sort((a, b) => b[1] - a[1]).map(([token, size]) => {
      const button = document.createElement("button"), patch = layer.ids.indexOf(token);
      button.type = "button";
      button.textContent = size;
      button.style.setProperty("--of", layer.tokens[token][0]);
      button.setAttribute("aria-label", inWords(stage.map, patch));
      button.dataset.token = token;
      button.addEventListener("focus", () => { if (!(spot && spot.held)) light(patch, alike, false); });
      listen(button, () => patch, alike);
      return button;
    }));
  }

  function paint() {
    stages.forEach(draw);
    stages.filter(stage => stage.list).forEach(stage => stage.list.querySelectorAll("button").forEach(button => {
      const lit = spot && spot.held && spot.stages.includes(stage) && layerOf(stage.map).ids[spot.patch];
      button.setAttribute("aria-pressed", String(lit === Number(button.dataset.token)));
    }));
    const maps = spot ? [...new Set(spot.stages.map(stage => stage.map))] : [];
    said.textContent = maps.map(map => inWords(map, spot.patch)).join(" · ");
  }

  function light(patch, chosen, held) { spot = { patch, stages: chosen, held }; paint(); }
  function letGo() { spot = null; paint(); }
  function hold(patch, chosen) {
    if (spot && spot.held && spot.patch === patch && spot.stages[0] === chosen[0]) letGo();
    else light(patch, chosen, true);
  }

  // pointing lights for as long as it lasts, a click or tap holds
  function listen(element, patchOf, chosen) {
    const free = () => !(spot && spot.held);
    element.addEventListener("pointermove", event => {
      if (event.pointerType === "mouse" && free()) light(patchOf(event), chosen, false);
    });
    for (const end of ["pointerleave", "blur"]) element.addEventListener(end, () => { if (free()) letGo(); });
    element.addEventListener("click", event => hold(patchOf(event), chosen));
  }

  stages.forEach(stage => {
    const { canvas } = stage;
    const linked = stages.filter(each => file.shared || each.frame === stage.frame);
    const place = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    listen(canvas, event => {
      const box = canvas.getBoundingClientRect();
      const row = place((event.clientY - box.top) / box.height, file.rows);
      return row * file.columns + place((event.clientX - box.left) / box.width, file.columns);
    }, linked);
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    canvas.addEventListener("keydown", event => {
      const patch = spot ? spot.patch : 0, step = steps[event.key];
      if (step) {
        const row = Math.floor(patch / file.columns) + (spot ? step[0] : 0);
        const column = patch % file.columns + (spot ? step[1] : 0);
        const inside = row >= 0 && row < file.rows && column >= 0 && column < file.columns;
        light(inside ? row * file.columns + column : patch, linked, false);
      } else if (event.key === "Enter" || event.key === " ") hold(patch, linked);
      else return;
      event.preventDefault();
    });
    if (!stage.image.complete) stage.image.addEventListener("load", () => draw(stage));
  });
  return { letGo, show: () => { stages.forEach(list); paint(); } };
}

const files = [...root.querySelectorAll("section.shown")].map((section, n) => prepare(section, data.files[n]));
function showLayer() {
  if (slider) {
    const { name } = layerOf(data.files[0].maps[0]);
    slider.nextElementSibling.textContent = `${name} of ${Number(slider.max) + 1}`;
    slider.setAttribute("aria-valuetext", name);
  }
  files.forEach(file => file.show());
}
if (slider) slider.addEventListener("input", showLayer);
root.addEventListener("keydown", event => { if (event.key === "Escape") files.forEach(file => file.letGo()); });
showLayer();
}
"""

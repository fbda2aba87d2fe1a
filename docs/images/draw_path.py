"""Draws path_light.svg and path_dark.svg: the way from a picture to a text, with the paper's numbers of tokens.

python docs/images/draw_path.py
"""

from __future__ import annotations

from pathlib import Path

from lavis_evlgen.token_reduction import merge_schedule, token_counts

LAYERS, R, VISION_TOKENS = 12, 19, 257
WIDTH, LEFT, RIGHT = 420, 20, 400
NAMES = ("text", "faint", "frozen", "trained", "line", "token")
PALETTES = {
    "light": dict(zip(NAMES, ("#1f2933", "#5b6770", "#dfe6ec", "#bfe5df", "#8a97a3", "#00796b"), strict=True)),
    "dark": dict(zip(NAMES, ("#e6eaee", "#a9b4be", "#37424d", "#1c5750", "#75818d", "#4db6ac"), strict=True)),
}


class Drawing:
    """SVG elements from top to bottom; `y` is where the next one begins."""

    def __init__(self, colours: dict[str, str]) -> None:
        self.colours = colours
        self.parts: list[str] = []
        self.y = 14.0

    def rect(self, x: float, y: float, width: float, height: float, colour: str, radius: float = 0) -> None:
        shape = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"'
        self.parts.append(f'<rect {shape} fill="{self.colours[colour]}"/>')

    def text(self, x: float, y: float, text: str, colour: str = "text", size: int = 14, anchor: str = "start") -> None:
        style = f'font-size="{size}" fill="{self.colours[colour]}" text-anchor="{anchor}"'
        self.parts.append(f'<text x="{x:g}" y="{y:g}" {style}>{text}</text>')

    def arrow(self, label: str) -> None:
        x, top, end = 60, self.y + 4, self.y + 36
        line = f'fill="none" stroke="{self.colours["line"]}" stroke-width="1.6"'
        self.parts.append(f'<path d="M{x} {top:g}V{end:g}M{x - 5} {end - 6:g}l5 6 5-6" {line}/>')
        self.text(x + 16, top + 21, label, "faint", 13)
        self.y = end + 4

    def box(self, name: str, detail: str, colour: str, height: float = 50) -> None:
        self.rect(LEFT, self.y, RIGHT - LEFT, height, colour, 8)
        self.text(LEFT + 14, self.y + 21, name)
        self.text(LEFT + 14, self.y + 40, detail, "faint", 13)
        self.y += height

    def squares(self, count: int, x: float, y: float, colour: str, columns: int, side: float = 6) -> None:
        for number in range(count):
            row, column = divmod(number, columns)
            self.rect(x + column * (side + 2), y + row * (side + 2), side, side, colour, 1)

    def bars(self, counts: list[int], height: float) -> None:
        """Tokens before the first layer and after each, in the box above that ends at `y`."""
        bottom, step = self.y - 24, (RIGHT - LEFT - 28) / len(counts)
        for number, count in enumerate(counts):
            x, tall = LEFT + 14 + number * step, height * count / counts[0]
            self.rect(x, bottom - tall, step - 6, tall, "token", 2)
            self.text(x + (step - 6) / 2, bottom + 14, str(count), "faint", 10, "middle")

    def svg(self, title: str) -> str:
        size = f'viewBox="0 0 {WIDTH} {self.y:g}" font-family="system-ui, sans-serif" role="img"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><title>{title}</title>'
        return "\n".join([head, *self.parts, "</svg>\n"])


def draw(colours: dict[str, str]) -> str:
    """The picture as SVG text."""
    counts = token_counts(VISION_TOKENS, merge_schedule(R, LAYERS))
    drawing = Drawing(colours)
    drawing.squares(256, 60, drawing.y, "line", 16)
    drawing.text(206, drawing.y + 60, "picture, 224 x 224")
    drawing.text(206, drawing.y + 79, "16 x 16 patches of 14 px", "faint", 13)
    drawing.y += 128
    drawing.arrow("[B, 3, 224, 224]")
    drawing.box("vision tower", "frozen ViT (eva_clip_g)", "frozen")
    drawing.arrow(f"{VISION_TOKENS} tokens: CLS + 256, each 1408 wide")
    drawing.box(
        "connector: TomeFormer", f"ln_vision, linear, {LAYERS} layers that merge {R} tokens each", "trained", 170
    )
    drawing.bars(counts, 90)
    drawing.arrow(f"{counts[-1]} tokens, each 768 wide")
    drawing.box("projection", "one linear layer", "trained")
    drawing.arrow(f"soft prompt: {counts[-1]} tokens, each 2560 wide")
    drawing.squares(counts[-1], LEFT + 14, drawing.y + 6, "token", counts[-1])
    drawing.text(LEFT + 256, drawing.y + 13, "+ a dog on a sofa", size=13)
    drawing.y += 22
    drawing.box("language model", "frozen (OPT-2.7B)", "frozen")
    drawing.arrow("loss on the text's tokens | caption | answer")
    drawing.rect(LEFT, drawing.y + 2, 12, 12, "trained", 2)
    drawing.text(LEFT + 18, drawing.y + 13, "trained", size=13)
    drawing.rect(LEFT + 90, drawing.y + 2, 12, 12, "frozen", 2)
    drawing.text(LEFT + 108, drawing.y + 13, "frozen", size=13)
    drawing.y += 22
    return drawing.svg(
        f"picture, vision tower ({VISION_TOKENS} tokens), connector, soft prompt ({counts[-1]} tokens), language model"
    )


if __name__ == "__main__":
    for name, palette in PALETTES.items():
        Path(__file__).with_name(f"path_{name}.svg").write_text(draw(palette))

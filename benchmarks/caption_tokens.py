"""Compare the Java-free caption tokens with those of Stanford's PTB tokenizer: agreement, effect on scores, kinds.

    python benchmarks/caption_tokens.py                        # 13,162 sentences of WordNet (tests/fixtures/sentences)
    python benchmarks/caption_tokens.py captions_val2014.json  # annotation files, or a sentence a line (.gz too)
    python benchmarks/caption_tokens.py /usr/share/wordnet     # all sentences of Debian's wordnet-base

It needs Java.
"""

import argparse
import difflib
import gzip
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_evlgen.datasets.records import READERS, read_records
from lavis_evlgen.metrics.captions import score_captions
from lavis_evlgen.metrics.tokenizers import JAVA_FREE, PTB, java, tokenize

FIXTURE = Path(__file__).parent.parent / "tests" / "fixtures" / "sentences" / "wordnet.txt.gz"
SCORED = 10_000  # sentences for the effect on scores, which take longer than tokens
SCORES = ("CIDEr", "Bleu_1", "Bleu_4", "ROUGE_L")
KINDS = {
    "apostrophes": re.compile(r"'"),
    "numbers": re.compile(r"\d"),
    "full stops": re.compile(r"\."),
    "hyphens and slashes": re.compile(r"[-/]"),
}


@dataclass(frozen=True)
class Difference:
    sentence: str
    ptb: str
    java_free: str

    @property
    def kind(self) -> str:
        texts = self.ptb + self.java_free
        return next((kind for kind, pattern in KINDS.items() if pattern.search(texts)), "other signs")


def read_sentences(path: Path) -> list[str]:
    """Distinct sentences of a file: captions of an annotation file, WordNet's folder, or lines of text."""
    if path.is_dir():
        found = [text for file in sorted(path.glob("data.*")) for text in _wordnet(file)]
    elif path.suffix in READERS:
        found = [caption for record in read_records(path) for caption in record.captions]
    else:
        data = path.read_bytes()
        found = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
    return list(dict.fromkeys(" ".join(text.split()) for text in found if text.strip()))


def _wordnet(file: Path) -> Iterator[str]:
    """Definition and example sentences of every entry of a WNdb data file."""
    for line in file.read_text(encoding="utf-8").splitlines():
        _, bar, gloss = line.partition(" | ")
        if bar and not line.startswith("  "):
            yield re.split(r';?\s*"', gloss)[0].strip()
            yield from (example.strip() for example in re.findall(r'"([^"]+)"', gloss))


def compare(sentences: Sequence[str]) -> tuple[float, list[Difference]]:
    """Share of sentences with equal tokens, and the first place where each of the others differs."""
    numbered = {str(number): [text] for number, text in enumerate(sentences)}
    ptb, free = tokenize(numbered, PTB), tokenize(numbered, JAVA_FREE)
    differences = []
    for text, (a,), (b,) in zip(sentences, ptb.values(), free.values(), strict=True):
        one, other = a.split(), b.split()
        if one != other:
            matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
            _, i, j, k, m = next(code for code in matcher.get_opcodes() if code[0] != "equal")
            differences.append(Difference(text, " ".join(one[i:j]), " ".join(other[k:m])))
    return 1 - len(differences) / len(sentences), differences


def scores_with_both(sentences: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Scores with PTB's and with the Java-free tokens of a made-up captioner.

    Every sentence is a "picture"; its references are itself and the next sentence, its caption leaves out every fifth
    of its words.
    """
    references = {str(n): [text, sentences[n - 1]] for n, text in enumerate(sentences)}
    captions = {
        str(n): " ".join(word for place, word in enumerate(text.split()) if place % 5 != 3)
        for n, text in enumerate(sentences)
    }
    ptb, free = (score_captions(references, captions, tokenizer=name) for name in ("ptb", "java_free"))
    return {name: (ptb[name], free[name]) for name in SCORES}


def report(name: str, sentences: Sequence[str], examples: int) -> None:
    share, differences = compare(sentences)
    print(f"{name}: {len(sentences):,} sentences, {len(differences)} differ, {share:.3%} have equal tokens")
    print(f"  scores of a made-up captioner on {min(SCORED, len(sentences)):,} of them:")
    for score, (ptb, free) in scores_with_both(sentences[:SCORED]).items():
        print(f"  {score}: {ptb:.6f} with PTB, {free:.6f} without Java, {free - ptb:+.1e}")
    by_kind: dict[str, list[Any]] = defaultdict(list)
    for difference in differences:
        by_kind[difference.kind].append(difference)
    for kind, found in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        print(f"  {kind}: {len(found)}")
        for each in found[:examples]:
            print(f"    PTB {each.ptb!r}, without Java {each.java_free!r}: {each.sentence[:90]}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=[FIXTURE], metavar="FILE")
    parser.add_argument("--examples", type=int, default=5, metavar="N", help="differences shown of each kind")
    args = parser.parse_args(argv)
    if not java():
        print("error: this comparison needs `java` on the PATH", file=sys.stderr)
        return 2
    for file in args.files:
        report(file.name, read_sentences(file), args.examples)
    return 0


if __name__ == "__main__":
    sys.exit(main())

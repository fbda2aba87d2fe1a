"""How long people wait for the page: one after the other, and eight at once, some with broken files.

    python benchmarks/page_latency.py [options of `evlgen serve`]

starts the page in a process of its own, on two threads where OMP_NUM_THREADS does not say otherwise, and asks it over
HTTP with the page's own example pictures.
"""

import io
import os
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from lavis_evlgen.page.examples import examples

ROUNDS, PEOPLE = 3, 8


def main() -> int:
    command = [sys.executable, "-u", "-m", "lavis_evlgen.cli", "serve", "--port", "0", *sys.argv[1:]]
    environment = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout
            address = next(
                (found[1] for line in server.stdout if (found := re.search(r"open (http://\S+)", line))), None
            )
            if address is None:
                return server.wait() or 1
            measure(address)
        finally:
            server.terminate()
    return 0


def measure(address: str) -> None:
    pictures = [encoded(each.picture) for each in examples()]
    seconds = [asked(address, data)[0] for _ in range(ROUNDS) for data in pictures]
    print(
        f"one at a time, {len(seconds)} captions: median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s"
    )
    broken = [b"no picture", pictures[0][: len(pictures[0]) // 2]]
    sent = (broken + pictures * PEOPLE)[:PEOPLE]
    with ThreadPoolExecutor(PEOPLE) as people:
        found = list(people.map(lambda data: asked(address, data), sent))
    codes = ", ".join(str(code) for _, code in found)
    print(f"{PEOPLE} at once, two of them with broken files: answers {codes}; the last after {max(found)[0]:.2f} s")


def asked(address: str, data: bytes) -> tuple[float, int]:
    """Seconds until the answer, and its status."""
    start = time.perf_counter()
    answer = httpx.post(f"{address}/api/caption", files={"file": ("a.png", data)}, timeout=600)
    return time.perf_counter() - start, answer.status_code


def encoded(picture) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


if __name__ == "__main__":
    sys.exit(main())

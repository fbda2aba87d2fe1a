"""The launcher with the tiny model registered: `torchrun tiny_run.py --cfg-path ...`."""

import tiny_lavis  # noqa: F401

from lavis_evlgen.launch import run_and_leave

if __name__ == "__main__":
    run_and_leave()

"""The launcher with the tiny model registered: `torchrun tiny_run.py --cfg-path ...`."""

import sys

import tiny_lavis  # noqa: F401

from lavis_evlgen.launch import main

if __name__ == "__main__":
    sys.exit(main())

"""Evaluate a model without training: `python lavis/evaluate.py --cfg-path FILE.yaml`, alone or below `torchrun`.

This folder is no package on purpose: `import lavis` finds the installed LAVIS.
"""

import sys

from lavis_evlgen.launch import main

if __name__ == "__main__":
    sys.exit(main(evaluate=True))

"""Train a model: `python -m lavis_evlgen.train --cfg-path FILE.yaml [--options KEY=VALUE]`."""

import sys

from lavis_evlgen.launch import main

if __name__ == "__main__":
    sys.exit(main())

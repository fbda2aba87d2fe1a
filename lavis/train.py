"""Train a model: `python lavis/train.py --cfg-path FILE.yaml`, alone or below `torchrun`.

This folder is no package on purpose: `import lavis` finds the installed LAVIS.
"""

from lavis_evlgen.launch import run_and_leave

if __name__ == "__main__":
    run_and_leave()

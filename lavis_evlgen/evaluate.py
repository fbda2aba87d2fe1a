"""Evaluate a model without training: `python -m lavis_evlgen.evaluate --cfg-path FILE.yaml [--options KEY=VALUE]`."""

from lavis_evlgen.launch import run_and_leave

if __name__ == "__main__":
    run_and_leave(evaluate=True)

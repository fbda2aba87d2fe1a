"""What importing the package does where LAVIS is missing."""

import subprocess
import sys

PROGRAM = "import sys\nsys.modules['lavis'] = None  # as if it were not installed\nimport lavis_evlgen"


def test_without_lavis_the_error_says_how_to_install_it():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 1
    kind, _, text = done.stderr.splitlines()[-1].partition(": ")
    assert kind == "lavis_evlgen.errors.MissingLavisError"
    assert text.startswith("LAVIS is not installed: pip install --no-deps salesforce-lavis==1.0.2")

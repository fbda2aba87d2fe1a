import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: runs are forked from this process
os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)
sys.path.append(str(HERE.parents[1] / "tests" / "runners"))  # the tiny model

if __name__ == "__main__":
    from fault_campaign.command import main

    sys.exit(main())

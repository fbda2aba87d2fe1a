"""Faults injected into real training runs, each followed by the same command again: `python benchmarks/fault_campaign`

A run of `lavis_evlgen` is disturbed (killed, its disk full, its checkpoints or data damaged, a rank stopped ...) and
started again. The fault counts as recovered when, against the undisturbed run,

- `log.jsonl` holds every step exactly once, with the same loss, learning rate and gradient norm to the last digit, and
  the same validation metrics,
- the tensors of `model.pth` are the same bit for bit,
- nothing unfinished lies in the run folder.

Where samples were damaged, the undisturbed run is one on intact data from which exactly these samples were taken at
the places where they come; what the task saw at each step must be what it sees on intact data, less these samples.
Damage means what can be known from a file: cut off, empty, missing, other content, broken headers. Flipped bits inside
the coded part of a JPEG or a clip give another picture and no error; no reader finds them without checksums.
What must stop a run (a full disk, a damaged annotation line, a dead rank, too many NaN steps) must stop it with an
error that names it, and once that is mended the same command must end as the undisturbed run.

Everything is done to the real runner by real means: signals, bytes of files, a file system without space (a small
tmpfs; where none may be mounted, RLIMIT_FSIZE in its place, and the table says so). Processes are faulted with the
tiny model of the tests, data with an `evlgen` model of random weights and the project's builders. Runs are forked
from one process that has imported everything: an import of LAVIS takes longer than such a run.

`--seed` fixes the list of faults and what each draws; the operating system decides the exact moment. A fault that did
not strike (the run was over before) is drawn again, and not counted if it never strikes.

    python benchmarks/fault_campaign                                     200 faults
    python benchmarks/fault_campaign --count 500 --minutes 30 --seed 7
    python benchmarks/fault_campaign --only "clip damaged" --case 3      one fault again

The table names faults injected, recovered and failed by kind; `faults.json` beside it has every case with its seed.
The folder of a case that failed is kept. The exit code is 1 when one failed.
"""

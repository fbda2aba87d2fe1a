PYTHON ?= python3
BIN := .venv/bin
# waiting threads sleep instead of spinning: on a busy machine spinning stalls steps for seconds
RUN := OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m torch.distributed.run --nproc_per_node=1

.PHONY: setup demo demo-long demo-video demo-vqa demo-compare faults test test-slow lint clean

setup: .venv/.installed

.venv/.installed: requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 10) and f"Python 3.11 is needed, this is {v[0]}.{v[1]}: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv .venv || { echo "venv is missing: install your system's python3-venv package"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# the main job on the embedded default: pictures, training, evaluation, report
demo: setup
	$(BIN)/python -m lavis_evlgen.embedded --out outputs/demo/data
	$(RUN) lavis/train.py --cfg-path projects/demo/train.yaml
	$(BIN)/python -m lavis_evlgen.cli report outputs/demo

# 300 things, two in a picture: half an hour to an hour on two cores
demo-long: setup
	$(BIN)/python -m lavis_evlgen.embedded --out outputs/demo_long/data --things 300 --train 3600 --val 120 --test 300 --unseen 90 --unseen-things 30 --two-things 0.25
	$(RUN) lavis/train.py --cfg-path projects/demo/train_long.yaml
	$(BIN)/python -m lavis_evlgen.cli report outputs/demo_long

# clips of episodes and their reverses: half an hour on two cores
demo-video: setup
	$(BIN)/python -m lavis_evlgen.cli demo --video

# questions about shapes and colours (easy-vqa): about half an hour on two cores
demo-vqa: setup
	$(BIN)/python -m lavis_evlgen.embedded.easy_vqa --out outputs/demo_vqa/data
	$(RUN) lavis/train.py --cfg-path projects/demo/vqa.yaml

# EVLGen beside BLIP-2 and simpler connectors: some hours on two cores, to be interrupted at will
demo-compare: setup
	$(BIN)/python -m lavis_evlgen.embedded --out outputs/compare_demo/data --things 16 --train 640 --val 64 --test 160 --unseen 0
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m lavis_evlgen.cli compare --cfg-path projects/blip2/compare_demo.yaml

# 200 faults injected into training runs, each of which must go on as if nothing had been
faults: setup
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/fault_campaign

test: setup
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv outputs build dist *.egg-info

PYTHON ?= python3
BIN := .venv/bin
# waiting threads sleep instead of spinning: on a busy machine spinning stalls steps for seconds
RUN := OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m torch.distributed.run --nproc_per_node=1

.PHONY: setup demo demo-long embedded-model demo-video demo-vqa demo-compare faults docs notebooks test test-slow lint clean

setup: .venv/.installed

.venv/.installed: requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and f"Python 3.11 is needed, this is {v[0]}.{v[1]}: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv .venv || { echo "venv is missing: install your system's python3-venv package"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# the main job on the embedded default: pictures, training, evaluation, report
demo: setup
	$(BIN)/python -m lavis_evlgen.embedded --out outputs/demo/data
	$(RUN) lavis/train.py --cfg-path projects/demo/train.yaml
	$(BIN)/python -m lavis_evlgen.cli report outputs/demo

# 300 things: an hour or two on two cores
demo-long: setup
	$(BIN)/python -m lavis_evlgen.embedded --out outputs/demo_long/data --things 300 --train 7200 --val 150 --test 600 --unseen 60 --unseen-things 30
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m torch.distributed.run --nproc_per_node=2 lavis/train.py --cfg-path projects/demo/train_long.yaml
	$(BIN)/python -m lavis_evlgen.cli report outputs/demo_long --command "make demo-long"

# the trained model that comes with the package: the long demo's, in half precision, measured again
embedded-model: demo-long
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m lavis_evlgen.embedded.ship outputs/demo_long

# clips of episodes and their reverses: half an hour on two cores
demo-video: setup
	$(BIN)/python -m lavis_evlgen.cli demo --video

# questions about shapes and colours (easy-vqa): about half an hour on two cores
demo-vqa: setup
	$(BIN)/python -m lavis_evlgen.embedded.easy_vqa --out outputs/demo_vqa/data
	$(RUN) lavis/train.py --cfg-path projects/demo/vqa.yaml
	$(BIN)/python -m lavis_evlgen.cli report outputs/demo_vqa

# EVLGen beside BLIP-2 and simpler connectors: some hours on two cores, to be interrupted at will
demo-compare: setup
	$(BIN)/python -m lavis_evlgen.embedded --out outputs/compare_demo/data --things 16 --train 640 --val 64 --test 160 --unseen 0
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m lavis_evlgen.cli compare --cfg-path projects/blip2/compare_demo.yaml

# 200 faults injected into training runs, each of which must go on as if nothing had been
faults: setup
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/fault_campaign

# the documentation as a site in outputs/site; its pages open from the disk, searching them needs a server:
# python -m http.server --directory outputs/site
docs: setup
	$(BIN)/mkdocs build

# executes the notebooks of examples/ and keeps their outputs: six to ten minutes on two cores
notebooks: setup
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python examples/execute.py

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

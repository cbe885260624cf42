# Everything runs in .venv, made by `make setup` from constraints.txt; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
METIER := $(VENV)/bin/metier

.PHONY: setup demo test test-slow check format clean

setup: $(VENV)/.ready

# torch first and alone, at the version of the constraints, so that the rest is resolved around it.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	rm -rf runs/demo
	$(METIER) adapt pack:clinical --out runs/demo --minutes 5

test: setup
	$(VENV)/bin/python -m pytest

test-slow: setup
	$(VENV)/bin/python -m pytest -m slow

check: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: setup
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

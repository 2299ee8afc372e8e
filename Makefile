PYTHON ?= python3.11
VENV := .venv

.PHONY: demo test lint clean

demo: $(VENV)/.ready
	$(VENV)/bin/coterie demo $(ARGS)

test: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) .coterie demo-results

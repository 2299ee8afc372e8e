PYTHON ?= python3.11
VENV := .venv

.PHONY: demo test bench audit lint clean

demo: $(VENV)/.ready
	$(VENV)/bin/coterie demo $(ARGS)

test: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest

bench: $(VENV)/.ready
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable ".[bench]"
	OMP_NUM_THREADS=1 $(VENV)/bin/python -W ignore -m benchmarks.engine $(ARGS)

audit: $(VENV)/.ready
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) .coterie demo-results

# `make demo` and `make test` do all of their own set-up; they need Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
JOBS   ?= 2
# What pip is asked for first; see README.md for the CPU build.
TORCH  ?= torch

.PHONY: demo test coverage lint page package site install browser clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt src/dqecir/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "dqecir needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/dqecir demo --out demo

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

# The whole suite with branch coverage, which takes longer than `make test`; its figures go into docs/coverage.md.
coverage: install
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n $(JOBS)
	$(BIN)/coverage combine --quiet
	@mkdir -p build
	$(BIN)/coverage json --quiet -o build/coverage.json
	$(BIN)/python -m benchmarks.write_coverage build/coverage.json
	@grep covers docs/coverage.md

# Types and form of the page's JavaScript, by the tools that package-lock.json names.
page:
	@if ! command -v npm >/dev/null; then echo "no Node here: the page's JavaScript is not checked"; exit 0; fi; \
	if ! npm ping --silent >/dev/null 2>&1; then echo "no npm registry here: the page's JavaScript is not checked"; exit 0; fi; \
	npm ci --silent --no-audit --no-fund && npm run --silent check

# What a release uploads. The wheel must hold the notices of others' weights, and all that the demonstration needs.
package: install
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m zipfile --list dist/*.whl | grep -q licenses/THIRD_PARTY_NOTICES.md
	$(BIN)/python tests/e2e/wheel.py dist/*.whl

# The documents and the API reference as a site in site/; a link that leads nowhere is an error.
site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# The tests of the page need a Chromium, and are skipped without one. Only root can install it; nothing fails without.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then echo "no Chromium here: the tests of the page are skipped"; exit 0; fi; \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -qq -y --no-install-recommends chromium; } >/dev/null 2>&1 \
		|| echo "Chromium could not be installed: the tests of the page are skipped"

lint: install
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build demo dist node_modules site .coverage* .mypy_cache .ruff_cache .pytest_cache

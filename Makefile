# make demo: from nothing to measured samples of digits.   make test: the same from nothing, and the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
CONFIG := diffusion/edm_digits

.PHONY: all setup demo test lint format bench clean

all: test

setup: $(STAMP)

# The pinned versions of constraints.txt; done again when they or the package's own list change.
$(STAMP): constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

demo: $(STAMP)
	$(BIN)/genjax train --config=$(CONFIG) --workdir=$(DEMO)/run
	$(BIN)/genjax evaluate --workdir=$(DEMO)/run --out=$(DEMO)/metrics.json --curve=$(DEMO)/loss.png
	$(BIN)/genjax sample --workdir=$(DEMO)/run --num=100 --out=$(DEMO)/samples.png
	@echo "pictures: $(DEMO)/samples.png (a row a class), $(DEMO)/loss.png; figures: $(DEMO)/metrics.json"

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python -m benchmarks.run

clean:
	rm -rf $(DEMO) build dist

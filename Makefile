# Every target makes what it needs of the environment in .venv first; a stamp per set of packages, older or newer
# than pyproject.toml, makes that instant the second time. Pass options with ARGS="...".

VENV := .venv
PYTHON_BIN := $(VENV)/bin/python
ARGS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL: # two installers in one environment would trip over each other
.PHONY: help run test test-all check format bench clean

help:
	@echo "make run       chat with a model; the first time it fetches a small one (ARGS=\"MODEL --temp 0.7\")"
	@echo "make test      the tests, without those that take minutes"
	@echo "make test-all  all tests, with llama.cpp as a reference (compiled once: minutes)"
	@echo "make check     formatting, lint, types, import contracts"
	@echo "make format    apply formatting and the lint fixes that are safe"
	@echo "make bench     speed beside mlx-lm and llama.cpp"
	@echo "make clean     remove the environment and all that was made here (models stay)"

run: $(VENV)/.made-run
	@$(PYTHON_BIN) -m macllm chat $(ARGS)

test: $(VENV)/.made-test
	$(PYTHON_BIN) -m pytest -n 2 -m "not slow" $(ARGS)

test-all: $(VENV)/.made-test $(VENV)/.made-peers
	$(PYTHON_BIN) -m pytest -n 2 $(ARGS)

check: $(VENV)/.made-check
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.made-check
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(VENV)/.made-peers
	$(PYTHON_BIN) -m bench $(ARGS)

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made-run: pyproject.toml scripts/environment
	@PYTHON="$(PYTHON)" scripts/environment
	@touch $@

$(VENV)/.made-%: pyproject.toml scripts/environment
	@PYTHON="$(PYTHON)" scripts/environment $*
	@touch $@

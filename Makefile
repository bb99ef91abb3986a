# `make` alone lists what there is. Needs Python 3.11 or later and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m service

# Where nobody may write bytecode, each process would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo once serve env test lint types layers unit long cover gateways home fuzz mutants pictures chaos bench audit dist notes site clean
DIST ?= dist
COVERED := $(addprefix tests/,pure llm inbox emqx e2e api metrics fuzz contract cli) $(wildcard tests/demo/test_rulesql*.py)
# A Python that is gone, after an update of the system: its environment is made anew.
GONE := $(shell test -x $(BIN)/python || rm -f $(BIN)/pip $(VENV)/.demo $(VENV)/.test)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Your flows on this machine: broker, service, model, a play; Ctrl-C ends it
	@$(BIN)/emqx-gpt demo $(ARGS)

once: $(VENV)/.demo ## The same, but end after the play; fails unless every answer came
	@$(BIN)/emqx-gpt demo --once $(ARGS)

serve: $(VENV)/.demo ## Run the service with the settings of the environment and .env
	@$(RUN) serve

env: $(VENV)/.demo ## Tokens of your own into .env, which only you can read; what it sets stays
	@$(RUN) init --env-only --yes $(ARGS)

test: lint layers ## Lint, layers, types, and the tests near the parts: minutes
	@$(MAKE) --no-print-directory -j 2 types unit

lint: $(VENV)/.test ## ruff, and hadolint for the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile

types: $(VENV)/.test ## mypy, strict
	$(BIN)/mypy

layers: $(VENV)/.test ## import-linter: imports go downward only
	$(BIN)/lint-imports

unit: $(VENV)/.test ## Those tests alone, six at a time: most of them wait for something
	$(BIN)/pytest -q -n 6 --dist worksteal -m "not long"

long: $(VENV)/.test ## All other tests: whole processes, PostgreSQL, browsers, attacks, kills: half an hour
	$(BIN)/pytest -q -n 4 --dist worksteal -m long

cover: $(VENV)/.test ## How much of the inner layers the tests near them run; fails below 95 % of lines
	$(BIN)/pytest -q -n 4 --dist worksteal --cov --cov-report=term --ignore tests/pure/test_growth.py $(COVERED)

gateways: .venv-gateways/.made ## LiteLLM and llmock beside us, for the tests that go through them

home: .venv-home/.made ## Home Assistant beside us, for the tests of the examples

fuzz: $(VENV)/.test ## What the tests try at random, fifty times as much of it (FUZZ_SCALE=…)
	FUZZ_SCALE=$${FUZZ_SCALE:-50} $(BIN)/pytest -q -n 2 tests/fuzz

mutants: $(VENV)/.test ## Take each guard of docs/security.md out: does its test notice?
	$(BIN)/python -m tests.attacks.mutants

pictures: $(VENV)/.test ## The console's pictures in the READMEs, made anew
	SCREENSHOTS=docs/images $(BIN)/pytest -q tests/console/test_shots.py

chaos: $(VENV)/.test ## The long chaos run: kills, outages, full disks; prints its figures
	$(BIN)/python -m tests.chaos --long
	$(BIN)/python -m tests.chaos.waits

bench: $(VENV)/.test ## Measure beside the baselines; prints a table, writes bench.json and a picture
	$(BIN)/python -m tests.bench --json bench.json --svg docs/bench.svg

audit: $(VENV)/.audit ## Known vulnerabilities of what is pinned; exit 2: nobody could be asked
	.ci/audit $(BIN)/pip-audit

dist: $(VENV)/.test ## Wheel, sdist and bill of materials (CycloneDX), into dist/
	$(BIN)/python -m build --no-isolation --outdir $(DIST) .
	$(BIN)/python .ci/bom.py $(DIST)/emqx-gpt.cdx.json

notes: $(VENV)/.test ## Release notes of this version (VERSION=…), from CHANGELOG.md
	@$(BIN)/python .ci/notes.py $(VERSION)

site: $(VENV)/.test ## The documents as a site, into site/; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean: ## Remove what make made
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache

# pip comes last: without it .venv is half-made, by an interruption or on Debian without python3-venv.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or later is needed; name one: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'This Python can make no environments. On Debian and Ubuntu: sudo apt install python3-venv'; exit 1; }
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip

.venv-gateways/.made:
	$(PYTHON) -m venv .venv-gateways
	.venv-gateways/bin/pip install --quiet --disable-pip-version-check 'litellm[proxy]==1.108.7' 'llmock==0.2.2'
	@touch $@

.venv-home/.made: tests/examples/home/requirements.txt
	$(PYTHON) -m venv .venv-home
	.venv-home/bin/pip install --quiet --disable-pip-version-check --no-compile -r $<
	@touch $@

$(VENV)/.demo: $(VENV)/bin/pip pyproject.toml constraints.txt
	@echo 'Installing (once) …'
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.audit: $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/pip pyproject.toml constraints.txt
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@ $(VENV)/.demo

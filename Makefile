# Infero's commands; `make` alone lists them. Each sets up what it needs.
PORT ?= 8000
STEP ?=
export PYTHON
PY := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help book site test fuzz lab gpu lint set-repo lock env clean clean-all

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

book: env ## build the book, all labs executed, and serve it on this machine (PORT=8000)
	@$(PY) tools/site.py book --port $(PORT)

site: env ## build the book into _build/html without serving it
	@$(PY) tools/site.py build

test: env ## run every test: unit, labs, site, browser
	@$(PY) tools/test.py

fuzz: env ## fuzz the scheduler for longer (INFERO_FUZZ_STEPS=1000000)
	@INFERO_FUZZ_STEPS=$${INFERO_FUZZ_STEPS:-1000000} $(PY) -m pytest -q --timeout 0 tests/test_scheduler_fuzz.py

lab: env ## open JupyterLab on your own copies of the labs
	@$(PY) tools/lab.py

gpu: ## measure on this machine's GPU into results/ (STEP="limits tests" picks steps)
	@sh tools/gpu.sh $(STEP)

lint: env ## check style, types and workflow files
	@$(PY) -m ruff check .
	@$(PY) -m mypy infero
	@$(PY) -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(PY) -m check_jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

set-repo: env ## name the repository everywhere that needs it (URL=https://…)
	@$(PY) tools/set_repo.py "$(URL)"

lock: ## renew requirements.txt from tools/requirements.in
	@sh tools/python.sh tools/lock.py

env: ## make the environment: .venv, packages, model
	@sh tools/python.sh tools/setup.py env

clean: ## remove what was built and cached; your notebooks and pieces stay
	@rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

clean-all: clean ## also remove the environment
	@rm -rf .venv

# The commands for working on this repository. The first run installs what they need: Python packages into .venv,
# including a PostgreSQL, and on Debian as root also PostgreSQL with wal2json.

PYTHON ?= python3
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
AT_ONCE := -n 4 --dist loadfile --no-loadscope-reorder  # by file; more workers than cores, because tests mostly wait

.DEFAULT_GOAL := help
.PHONY: help demo test test-examples check lint docs guard stress bench twins clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## watch documents change, kill the watcher, resume, compare; less than a minute
	@$(RUN) .ci/install_server.py
	@$(RUN) -m pgdoc demo $(ARGS)

test: $(VENV)/.tests  ## run the tests on a private PostgreSQL (ARGS="-k diff" selects some)
	@$(RUN) .ci/install_server.py --or-docker
	@$(RUN) .ci/install_programs.py --or-skip pgbouncer redis-server
	@$(RUN) -m pytest --ignore=tests/stress --ignore=tests/examples --ignore=tests/site $(AT_ONCE) $(ARGS)

test-examples: $(VENV)/.examples  ## test the programs of docs/examples, with a real Redis and Chromium
	@$(RUN) .ci/install_server.py --or-docker
	@$(RUN) .ci/install_programs.py redis-server chromium chromedriver
	@$(RUN) -m pytest tests/examples $(AT_ONCE) -n 2 $(ARGS)

check: lint docs test  ## run lint, docs and test: must pass before a commit

lint: $(VENV)/.dev  ## check format, lint, types, shell and Docker files, and that the generated sync code is up to date
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(RUN) -m pyright --pythonpath $(RUN)
	@$(RUN) .ci/twins.py --check
	@$(VENV)/bin/shellcheck .ci/run .ci/install_python.sh
	@$(VENV)/bin/hadolint docker/Dockerfile docker/metrics.Dockerfile

docs: $(VENV)/.dev  ## build the documentation in site/ and check it; a broken link is an error
	@# no --quiet: it hides warnings from --strict, too
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --config-file docs/mkdocs.yml
	@$(RUN) -m pytest --quiet tests/site

guard: $(VENV)/.demo  ## fail if reading changes takes more instructions than bench/instructions.json allows
	@$(RUN) .ci/install_programs.py valgrind
	@$(RUN) -m bench instructions $(ARGS)

stress: $(VENV)/.tests  ## run the tests that kill processes, cut connections and stall networks; takes minutes
	@$(RUN) .ci/install_server.py --or-docker
	@$(RUN) .ci/install_programs.py --or-skip redis-server
	@$(RUN) -m pytest tests/stress $(ARGS)

bench: $(VENV)/.tests  ## compare streams with what people use instead: minutes (ARGS=--quick, ARGS=latency, ARGS=documents)
	@$(RUN) .ci/install_server.py --wal2json
	@$(RUN) -m bench $(ARGS)

twins: $(VENV)/.dev  ## generate the sync code from its async sources
	@$(RUN) .ci/twins.py

clean:  ## remove what these commands created
	rm -rf $(VENV) dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.demo $(VENV)/.tests $(VENV)/.examples $(VENV)/.dev: $(VENV)/.%: pyproject.toml
	@PYTHON=$(PYTHON) .ci/install_python.sh $(VENV) $*

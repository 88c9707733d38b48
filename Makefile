# Everything that is done with this repository, one word each. The first run installs what is needed: Python packages
# into .venv, a PostgreSQL among them, and wal2json with its server where it may (Debian as root).

PYTHON ?= python3
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
AT_ONCE := -n 4 --dist loadfile --no-loadscope-reorder  # files; most of a test's time is waiting

.DEFAULT_GOAL := help
.PHONY: help demo test test-examples check lint docs stress bench twins clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## watch real documents change, kill the watcher, resume, compare; under a minute
	@$(RUN) .ci/install_server.py
	@$(RUN) -m pgdoc demo $(ARGS)

test: $(VENV)/.tests  ## the tests, on a PostgreSQL of their own (ARGS="-k diff" for some of them)
	@$(RUN) .ci/install_server.py --or-docker
	@$(RUN) -m pytest --ignore=tests/stress --ignore=tests/examples --ignore=tests/site $(AT_ONCE) $(ARGS)

test-examples: $(VENV)/.examples  ## the programs of docs/examples, with the real Redis beside them
	@$(RUN) .ci/install_server.py --or-docker
	@$(RUN) .ci/install_examples.py
	@$(RUN) -m pytest tests/examples $(ARGS)

check: lint docs test  ## all that has to be green before a commit

lint: $(VENV)/.dev  ## format, lint, types, shell and Docker files, and that the sync twins are up to date
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(RUN) .ci/twins.py --check
	@$(VENV)/bin/shellcheck .ci/run .ci/install_python.sh
	@$(VENV)/bin/hadolint docker/Dockerfile

docs: $(VENV)/.dev  ## the documentation as a site in site/; a broken link is an error
	@# without --quiet, which hides warnings from --strict, too
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --config-file docs/mkdocs.yml
	@$(RUN) -m pytest --quiet tests/site

stress: $(VENV)/.tests  ## the tests that kill, cut and stall; minutes
	@$(RUN) .ci/install_server.py --or-docker
	@$(RUN) -m pytest tests/stress $(ARGS)

bench: $(VENV)/.tests  ## latency and throughput beside a bare loop and pg_recvlogical
	@$(RUN) .ci/install_server.py --wal2json
	@$(RUN) -m bench $(ARGS)

twins: $(VENV)/.dev  ## write pgdoc/_sync anew from pgdoc/_async
	@$(RUN) .ci/twins.py

clean:  ## remove what these commands made here
	rm -rf $(VENV) dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.demo $(VENV)/.tests $(VENV)/.examples $(VENV)/.dev: $(VENV)/.%: pyproject.toml
	@PYTHON=$(PYTHON) .ci/install_python.sh $(VENV) $*

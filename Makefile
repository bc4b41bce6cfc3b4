# One environment, four verbs: run, test, check, up. Everything installs itself from requirements.lock.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test check lint types slow up down house lock clean help

help:            ## this list
	@grep -E '^[a-z]+: .*##|^[a-z]+:  .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "MedDiff needs Python 3.11 or newer; $(PYTHON) is older. Set PYTHON=…"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing from requirements.lock (about two minutes) …"
	@$(BIN)/python -m pip install -q -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $(READY)

run: $(READY)    ## the whole pipeline on the built-in phantom, within ten minutes on two cores
	@env -u OMP_NUM_THREADS $(BIN)/meddiff run --profile demo

test: $(READY)   ## the fast tests
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

check: lint types slow  ## lint, types and the slow tests

lint: $(READY)   ## ruff, formatted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## ty
	$(BIN)/ty check

slow: $(READY)   ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not gpu"

up: $(READY)     ## a Prefect server, a worker and an MLflow server on loopback, flows deployed
	@$(BIN)/meddiff up

down: $(READY)   ## ends what `make up` started
	@$(BIN)/meddiff down

house: $(READY)  ## the house of infra/docker as processes on loopback: Postgres, S3, Dask, servers, workers
	@d=$$(mktemp -d) && echo "in $$d" && cd tests/infra && ../../$(BIN)/python house.py $$d/house

lock: $(READY)   ## rewrites requirements.lock from this environment
	@{ echo "# Run and dev packages, solved together on Python 3.11. Made by \`make lock\`; torch is the plain version on purpose."; \
	   $(BIN)/python -m pip freeze --exclude-editable | grep -viE '^(uv|pip|setuptools|meddiff|nvidia-|triton)\b' | sed -E 's/\+cpu//'; } > requirements.lock

clean:           ## removes the environment, not the lake
	rm -rf $(VENV)

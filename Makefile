# make demo   the main job, on SQLite, with a simulated Zoho
# make test   every test that can run on this machine
# make bench  how fast the store is, on every database that is there
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n auto
# A demonstration with the real Zoho has a file of its own, which is kept: its grant is spent.
DEMO_FILE := $(if $(ZOHO_GRANT_TOKEN),demo-zoho.db,demo.db)
DEMO_URL := sqlite:///$(DEMO_FILE)
USABLE := import sys; sys.exit("Python is too old") if sys.version_info < (3, 10) else None

.PHONY: demo test lint format compare bench clean

demo: $(VENV)/.installed
	$(if $(ZOHO_GRANT_TOKEN),,@rm -f $(DEMO_FILE) $(DEMO_FILE)-wal $(DEMO_FILE)-shm)
	@echo "Provisioning $(DEMO_FILE): alembic upgrade head"
	@ZOHO_TOKEN_DB_URL=$(DEMO_URL) $(BIN)/alembic upgrade head
	@ZOHO_TOKEN_DB_URL=$(DEMO_URL) $(BIN)/python examples/quickstart.py

test: $(VENV)/.developing
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict zoho_token_orm
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive zoho_token_orm migrations

format: $(VENV)/.developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The comparison table, in README.md and docs/comparison.md; it needs a MySQL server.
compare: $(VENV)/.developing
	$(BIN)/python docs/comparison.py --update

# The benchmark: benchmarks/results.md, and what benchmarks/README.md says of it. A quick look at one
# database: make bench BENCH_ARGS="--fast --databases postgresql --output build/bench"
bench: $(VENV)/.benchmarking
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# An environment that is there is used if it can be; one that was left half made is made anew.
$(VENV)/.made:
	@$(BIN)/python -c '$(USABLE); import pip' 2>/dev/null || { \
	  $(PYTHON) -c '$(USABLE)' || { \
	    echo "Python 3.10 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }; \
	  $(PYTHON) -m venv --clear $(VENV); }
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/.benchmarking: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo.db demo.db-wal demo.db-shm # not demo-zoho.db

# make demo   the main job, on SQLite, with a simulated Zoho
# make test   every test that can run on this machine
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n auto
DEMO_URL := sqlite:///demo.db

.PHONY: demo test lint format compare clean

demo: $(VENV)/.installed
	$(if $(ZOHO_GRANT_TOKEN),,@rm -f demo.db demo.db-wal demo.db-shm)
	@ZOHO_TOKEN_DB_URL=$(DEMO_URL) $(BIN)/alembic upgrade head
	@ZOHO_TOKEN_DB_URL=$(DEMO_URL) $(BIN)/python examples/quickstart.py

test: $(VENV)/.developing
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict zoho_token_orm

format: $(VENV)/.developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The comparison table, in README.md and docs/comparison.md; it needs a MySQL server.
compare: $(VENV)/.developing
	$(BIN)/python docs/comparison.py --update

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "Python 3.10 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo.db demo.db-wal demo.db-shm

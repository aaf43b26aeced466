# Every target does its own set-up; `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Those whose core tests `make test-pythons` runs; a name that is not here is passed over.
PYTHONS ?= python3.11 python3.12 python3.13
# Rooms whose tests need neither torch nor a day's work of Dagster.
CORE := $(addprefix flywheel_assets_tests/,curation formats measures promotion test_config.py test_conversations.py \
	test_discovery.py test_ranges.py)
# Where it is set, each of the tests' and the demo's processes would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo demo-fraud demo-ui pictures dev test test-long test-all test-pythons check audit format docs lock bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(INSTALLED)  ## only the environment, in .venv, with the flywheel command in it

$(INSTALLED): pyproject.toml clients/python/pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; set PYTHON=…"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]' --editable clients/python
	touch $(INSTALLED)

demo: install  ## two turns of the wheel on a simulated coding assistant, about 4 minutes
	FLYWHEEL_HOME=.flywheel-demo $(BIN)/flywheel demo

demo-fraud: install  ## a new card fraud appears, and the flywheel's classifier learns it from late labels
	FLYWHEEL_HOME=.flywheel-demo-fraud $(BIN)/flywheel demo --application fraud

demo-ui: install  ## Dagster's and MLflow's UI over what the demo left
	FLYWHEEL_HOME=.flywheel-demo $(BIN)/flywheel dev

pictures: install  ## take the pictures of the documentation again; needs Chromium, and plays the demos first
	test -e .flywheel-demo/demo/demo.png || $(MAKE) demo
	test -e .flywheel-demo-fraud/demo/demo-fraud.png || $(MAKE) demo-fraud
	$(BIN)/python docs/take_pictures.py

dev: install  ## webserver, daemon, capture and MLflow's UI on loopback
	$(BIN)/flywheel dev

test: install  ## the fast, offline tests
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not long and not slow and not gpu"

test-long: install  ## those of more than a second and a half; CI runs them, too
	$(BIN)/pytest -q -n 2 --dist loadfile -m "long and not slow and not gpu"

test-all: install  ## every test that this machine can run
	$(BIN)/pytest -q -n 2 --dist loadfile

test-pythons:  ## the core tests on each of PYTHONS that is here, without torch, in .venv-pythons
	@tested=; for python in $(PYTHONS); do \
	  version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || { echo "$$python is not here: not tested"; continue; }; \
	  there=.venv-pythons/$$version; \
	  test -x $$there/bin/python || $$python -m venv $$there || exit 1; \
	  $$there/bin/pip install --quiet --constraint constraints.txt --editable '.[classifier,kafka,onnx,s3,sqs,test]' --editable clients/python || exit 1; \
	  echo "Python $$version"; \
	  $$there/bin/python -m pytest -q -n 2 -p no:cacheprovider -m "not long and not slow and not gpu" $(CORE) || exit 1; \
	  tested="$$tested $$version"; \
	done; test -n "$$tested" && echo "passed on$$tested"

check: install  ## lint, format, types, architecture contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vermin --target=3.9- --no-tips --violations clients/python/flywheel_client
	$(BIN)/deptry .
	$(BIN)/dagster definitions validate --workspace workspace.yaml

audit:  ## known weaknesses of the pinned packages; asks PyPI's database
	test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit
	.venv-audit/bin/python -m pip_audit --no-deps --disable-pip --requirement constraints.txt

format: install  ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install  ## the documentation as a site, in site/index.html; every warning is an error
	$(BIN)/python docs/write_reference.py
	$(BIN)/python -m sphinx -c docs -E -W --keep-going -q -j auto . site
	@echo "open site/index.html"

bench: install  ## every benchmark; each prints its claim and a ratio
	for file in benchmarks/[a-z]*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

lock: install  ## write the installed versions into constraints.txt
	{ echo "# Every version that \`make install\` uses, resolved on Python 3.11 (Linux x86-64). Regenerate with \`make lock\`."; \
	  $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.tmp && mv constraints.tmp constraints.txt

clean:  ## remove the environment and the demos' data
	rm -rf $(VENV) .flywheel-demo .flywheel-demo-fraud

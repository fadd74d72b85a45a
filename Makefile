# Two commands do everything on a fresh machine with python3 (3.11 or later) and make:
#   make demo     the whole path, live: train, seal, stream, flag
#   make test     the test suite, on a real Apache Kafka
# TORCH_BACKEND=cpu takes the small build of torch, where its index can be reached.

PYTHON ?= python3
TORCH_BACKEND ?=
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
# Compiled while installing, where there is a C compiler; without it the worker reads more slowly.
SCANNER := worker/_scanner.c worker/_event.h worker/_number.h

AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)

.DEFAULT_GOAL := help
.PHONY: help demo test test-deps lint unit broker bench soak stack stack-down stack-test format clean

help: ## Say what can be made.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/demo.installed ## Train, seal, stream and flag on an embedded Kafka; about two minutes.
	@$(BIN)/python -m demo $(if $(KILL),--kill)

test: lint unit ## Lint, type-check, and run the tests on a real Apache Kafka.

lint: $(VENV)/dev.installed ## ruff and mypy --strict.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# A file of tests is one process's; each has a Kafka of its own.
JOBS ?= 2
unit: $(VENV)/dev.installed $(if $(CI),test-deps) ## The tests alone: TESTS=tests/worker; JOBS=2 processes.
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(TESTS)

# Without them the tests of alerts and dashboards skip; in CI they fail.
test-deps: ## Install Prometheus and Alertmanager from Debian's packages, for the tests of alerts.
	@command -v promtool >/dev/null && command -v prometheus-alertmanager >/dev/null || { \
	  command -v apt-get >/dev/null || { echo "No apt-get here; install Prometheus and Alertmanager by your own means." >&2; exit 1; }; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  $(AS_ROOT) apt-get install -qy --no-install-recommends prometheus prometheus-alertmanager || { \
	    $(AS_ROOT) apt-get update -q && \
	    $(AS_ROOT) apt-get install -qy --no-install-recommends prometheus prometheus-alertmanager; }; }

broker: $(VENV)/demo.installed ## Run the embedded Kafka in the foreground, on port 9092.
	@$(BIN)/python -m demo.broker --port 9092 --topics events scores dead-letters

bench: $(VENV)/dev.installed ## Every contender side by side: rates, CPU and latency; a quarter of an hour.
	@$(BIN)/python -m bench.compare

soak: $(VENV)/dev.installed ## Faults at random: MINUTES=10 SEED=1 DELIVERY=at-least-once; STOPS=50; STALL=60.
	@$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1) \
	  --delivery $(or $(DELIVERY),at-least-once) --stops $(or $(STOPS),0) --stall-s $(or $(STALL),0)

# The stack of docker-compose.yml. An alert rule compares the workers that are there with WORKERS.
WORKERS ?= 2
EXPECTED := $(shell expr $(WORKERS) + $(if $(GPU),1,0))
SECURITY := $(if $(SECURE),secure,plain)
PROFILES := $(if $(SECURE),--profile secure) $(if $(GPU),--profile gpu)
COMPOSE := STACK_SECURITY=$(SECURITY) ALERT_RULES=./build/alerts.yml GRAFANA_RULES=./build/grafana-rules.yml docker compose $(PROFILES)

stack: build/alerts.yml ## Kafka, trainer, workers, player, Prometheus, Grafana: WORKERS=2; SECURE=yes; GPU=yes.
	$(COMPOSE) up --build --detach --scale worker=$(WORKERS)
	@# It may have run before, with the rules of another number. A signal from inside: one that Docker
	@# sends would be taken for a stop, after which nothing is started again.
	@$(COMPOSE) exec -T prometheus sh -c 'kill -HUP 1'
	@echo "Grafana http://127.0.0.1:$(or $(GRAFANA_PORT),3000)  Prometheus http://127.0.0.1:$(or $(PROMETHEUS_PORT),9090)  alerts: docker compose logs -f pager"

stack-down: ## Take the stack down; the volumes stay (model, topics, metrics) unless ALL=yes.
	STACK_SECURITY=$(SECURITY) docker compose --profile secure --profile gpu down $(if $(ALL),--volumes)

stack-test: $(VENV)/dev.installed ## The stack for real: up, scored, a worker killed, alert, recovery, down; SECURE=yes; STAND_INS=yes.
	@$(BIN)/python -m tests.deploy.stack_run $(if $(SECURE),--secure) $(if $(STAND_INS),--stand-ins)

.PHONY: build/alerts.yml
build/alerts.yml: $(VENV)/stack.installed
	@mkdir -p $(@D)
	@$(BIN)/python -m deploy.alerts --set workers_expected=$(EXPECTED) --out $@ --grafana $(@D)/grafana-rules.yml

format: $(VENV)/dev.installed ## Format the code.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Remove what was made or downloaded here.
	rm -rf $(VENV) .cache build worker/*.so *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The environments: `demo` runs everything, `dev` adds the tests and the linters.
$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or later is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing)." >&2; \
	  echo "Get it from your distribution (Debian, Ubuntu: apt install python3 python3-venv) and" >&2; \
	  echo "run again, or name one: make demo PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; \
	  rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/demo.installed: EXTRAS := trainer,worker,broker
$(VENV)/dev.installed: EXTRAS := trainer,worker,broker,dev
$(VENV)/stack.installed: EXTRAS := stack
$(VENV)/%.installed: $(BIN)/uv pyproject.toml constraints.txt $(SCANNER)
	@$(if $(TORCH_BACKEND)$(filter stack,$(EXTRAS)),,echo "Installing into $(VENV). The first time this downloads about 3.3 GB, 3.6 for the tests (torch brings CUDA; \
	TORCH_BACKEND=cpu takes a build without it) and takes 6 to 7 GB of disk.";)
	@$(BIN)/uv pip install --python $(BIN)/python $(if $(TORCH_BACKEND),--torch-backend=$(TORCH_BACKEND),-c constraints.txt) -e '.[$(EXTRAS)]'
	@touch $@

# Two commands: `make demo` shows the main job, `make test` runs the checks. Each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --override requirements/overrides.txt \
	--custom-compile-command "make lock"
# Where pip is told of local wheels, the CPU build of torch is looked for there; elsewhere on PyTorch's own index.
CPU_TORCH := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),--torch-backend cpu)

.DEFAULT_GOAL := help
.PHONY: help install demo up test check chaos pictures bench-evals bench-cluster bench-crowd bench-train bench-serving bench-beside lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install:  ## make .venv with everything that is pinned in requirements/
	@$(PYTHON) requirements/install.py

demo: install  ## a short working day on this machine, live on a web page (ARGS=--exit ends after it)
	@$(BIN)/copydesk demo $(ARGS)

up: install  ## the desk for a real Slack workspace (.env holds its two tokens)
	@$(BIN)/copydesk up $(ARGS)

check: install  ## style, types and layers
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

test: check  ## check, then every test (ARGS='-k store' picks)
	@$(BIN)/pytest $(ARGS)

pictures: install  ## take the README's pictures anew
	@mkdir -p docs/pictures && COPYDESK_PICTURES=docs/pictures $(BIN)/pytest tests/test_browser_desk.py

bench-evals: install  ## how fast scorecards are made, as JSON lines (starts an engine)
	@$(BIN)/python -m evals.bench $(ARGS)

bench-train: install  ## how fast a round is: the article's recipe, TRL and ours, as JSON lines
	@$(BIN)/python -m trainer.bench

bench-serving: install  ## how fast versions are served and swapped, as JSON lines (starts an engine)
	@$(BIN)/python -m serving.bench

bench-beside: install  ## a draft while a round trains on the same cores, as JSON lines (starts an engine)
	@$(BIN)/python -m serving.beside_bench

bench-crowd: install  ## a thousand requests at once before a double of the engine, as JSON
	@$(BIN)/python tests/crowd.py

chaos: install  ## thirty kills of the bot and the real engine under 8 clients, a quarter to half an hour
	@COPYDESK_CHAOS=1 $(BIN)/pytest tests/test_chaos.py -k kills

bench-cluster: install  ## two engines against one on a local Ray cluster
	@$(BIN)/python -m serving.cluster_bench $(ARGS)

lock: install  ## pin requirements/cpu.txt and requirements/gpu.txt anew
	@$(COMPILE) $(CPU_TORCH) --upgrade requirements/cpu.in -o requirements/cpu.txt
	@$(COMPILE) --upgrade requirements/gpu.in -o requirements/gpu.txt

clean:  ## remove .venv; the data in var/ stays
	@rm -rf .venv

# Every target works first on a fresh machine: Python >= 3.11, a C++ compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
JOBS ?= 2
SOURCES := goldenctl tests benchmarks
FUZZ_S ?= 60
# Not --quiet: it hides the warnings that --strict would fail.
MKDOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
comma := ,
CPP := goldenctl/harness/*.cpp goldenctl/harness/*.h goldenctl/shim/*.cpp goldenctl/shim/*.h \
	goldenctl/include/*.h tests/fuzz/*.cpp tests/trace/*.cpp \
	docs/examples/engine/*.cpp docs/examples/engine/*.h

.PHONY: help test-slow setup demo demo-real demo-trace demo-trace-real check check-real goldens test lowest sbom lint format \
	docs dist benchmark fuzz integrity clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(VENV)/.installed  ## Make the environment in .venv, with all that tests need

# $(call install,EXTRAS): bring goldenctl and these extras of it into .venv.
define install
	@echo "== making the environment (a few minutes the first time, most of it PyTorch)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "goldenctl needs Python 3.11 or newer; run make PYTHON=python3.11"; exit 3; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python docs/install.py --constraint constraints.txt --editable '.[$(1)]'
	@$(BIN)/goldenctl --version
	@touch $@
endef

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call install,dev)

$(VENV)/.usable: pyproject.toml constraints.txt
	$(call install,record$(comma)build)

demo: $(VENV)/.usable  ## Record a small random Qwen3, replay it on InfiniCore, diff
	@sh docs/demo.sh $(BIN) $(DEMO)/tiny synth

demo-real: setup  ## The same with real trained weights (SmolLM2-135M, an 89 MiB download)
	@sh docs/demo.sh $(BIN) $(DEMO)/smollm2 real

demo-trace: $(VENV)/.usable  ## Build a C++ engine on InfiniCore, trace it, and find a mistake in it
	@sh docs/demo-trace.sh $(BIN) $(DEMO)/trace

demo-trace-real: setup  ## The same engine on SmolLM2-135M in three types (an 89 MiB download)
	@$(BIN)/goldenctl infinicore status >/dev/null 2>&1 || $(BIN)/goldenctl infinicore install
	@mkdir -p $(DEMO)/smollm2
	@test -d $(DEMO)/smollm2/model || $(BIN)/python tests/real_weights.py $(DEMO)/smollm2/model
	@sh docs/demo-trace-real.sh $(BIN) $(DEMO)/smollm2

check: setup  ## Check the golden sets of random models on InfiniCore
	@$(BIN)/goldenctl infinicore status >/dev/null 2>&1 || $(BIN)/goldenctl infinicore install
	$(BIN)/goldenctl check qwen3-tiny qwen2-tiny llama-tiny

check-real: setup  ## The same for SmolLM2-135M (an 89 MiB download)
	@$(BIN)/goldenctl infinicore status >/dev/null 2>&1 || $(BIN)/goldenctl infinicore install
	@mkdir -p $(DEMO)/smollm2
	@test -d $(DEMO)/smollm2/model || $(BIN)/python tests/real_weights.py $(DEMO)/smollm2/model
	$(BIN)/goldenctl check smollm2-135m --against manifest

goldens: setup  ## Record the golden sets of this repository again and renew their manifests
	@sh goldens/renew.sh $(BIN)

test: setup  ## Run the tests, but for those that are slow
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

sbom: setup  ## Write build/sbom.json: every installed package, its version and its hash (CycloneDX)
	@mkdir -p build
	$(BIN)/python .ci/sbom.py >build/sbom.json

lowest:  ## Run the demo and quick tests with the lowest versions that pyproject.toml allows
	sh .ci/lowest

test-slow: setup  ## Run the tests that make test leaves out: the same in large
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m slow

lint: setup  ## Check formatting, lint, types, the layers of packages and the links of docs
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(MKDOCS)
	$(BIN)/clang-format --dry-run --Werror $(CPP)

format: setup  ## Format everything
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/clang-format -i $(CPP)

docs: setup  ## Build the documentation as a site, build/site, with its links checked
	$(MKDOCS)
	@echo "see it with: python3 -m http.server -d build/site"

dist: setup  ## Build dist/: a wheel and a source distribution (docs/releasing.md)
	rm -rf dist
	$(BIN)/python -m build --outdir dist

benchmark: setup  ## Measure record, diff and trace against their bars (a quarter of an hour)
	$(BIN)/python benchmarks/diff.py
	$(BIN)/python benchmarks/record.py
	$(BIN)/python benchmarks/trace.py

fuzz: setup  ## Fuzz every reader of untrusted bytes, FUZZ_S seconds each (needs clang)
	@command -v clang++ >/dev/null || { echo "make fuzz needs clang++ with libFuzzer"; exit 3; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/cmake -S goldenctl/harness -B build/fuzz -G Ninja \
		-DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DCMAKE_CXX_COMPILER=clang++ \
		-DGOLDENCTL_FUZZ=$(CURDIR)/tests/fuzz/fuzz_plan.cpp
	$(BIN)/cmake --build build/fuzz
	mkdir -p build/fuzz/found && build/fuzz/fuzz-plan -dict=tests/fuzz/plan.dict -timeout=10 \
		-rss_limit_mb=1024 -max_total_time=$(FUZZ_S) build/fuzz/found tests/fuzz/corpus/plan
	for target in manifest safetensors recipe report times journal golden; do \
		$(BIN)/python tests/fuzz/fuzz_python.py $$target -max_total_time=$(FUZZ_S) || exit 1; \
	done

integrity: setup  ## Damage files, kill commands and fill disks (hours; docs/integrity.md)
	$(BIN)/python tests/integrity/damage.py
	$(BIN)/python tests/integrity/recipes.py
	$(BIN)/python tests/integrity/kill.py
	$(BIN)/python tests/integrity/disk.py

clean:  ## Remove what make made
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

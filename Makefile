# Every target makes its own virtual environment; all it needs is Python 3.11 or newer, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete

.PHONY: help demo test soak faults cuda check serve bench gpu kernels format generate clean

help: ## Show this list.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

demo: $(STAMP) ## Train the reference network on MNIST, on a server of its own.
	$(BIN)/mlpd quickstart

test: $(STAMP) ## Run the tests, one process a core.
	$(BIN)/python -m pytest -n auto --dist loadfile

soak: $(STAMP) ## Run the tests that draw their examples at random on twenty times as many.
	SOAK=20 $(BIN)/python -m pytest -n auto --dist worksteal tests/core/test_any_network.py tests/core/test_any_spec.py \
	    tests/core/test_fusion.py tests/core/test_gradients.py tests/core/test_predictor.py tests/server/test_any_request.py tests/client/test_table_properties.py

faults: $(STAMP) ## Run the longer fault tests.
	$(BIN)/python -m pytest -m faults -s

# Long files first: the last one is run by one process alone.
cuda: ## Run the CUDA tests without a GPU: EMULATED is a command that runs others on an emulated one.
	@test -n "$(EMULATED)" || { echo "make cuda EMULATED=COMMAND: there is no emulator named; with a GPU, make gpu"; exit 2; }
	$(EMULATED) python -m pip install --quiet --editable '.[server]' array-api-strict hypothesis pytest pytest-xdist scikit-learn
	$(EMULATED) python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m cuda tests/system/test_recovery.py tests/cuda tests/core

check: $(STAMP) ## Check format, style, types, architecture, protocol, generated code and containers.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/lint_proto.py
	$(BIN)/python tools/generate_spec.py --check
	$(BIN)/python tools/generate_proto.py --check
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

serve: $(STAMP) ## Start a server on 127.0.0.1:6573.
	$(BIN)/mlpd serve

# Where the environment names a BLAS kernel, the machine's own is measured all the same.
bench: $(STAMP) ## Measure every speed we claim, beside other libraries where they are installed.
	env -u OPENBLAS_CORETYPE $(BIN)/python benchmarks/service_overhead.py
	env -u OPENBLAS_CORETYPE $(BIN)/python benchmarks/open_streams.py
	env -u OPENBLAS_CORETYPE $(BIN)/python benchmarks/long_queue.py
	$(BIN)/python benchmarks/frames.py
	env -u OPENBLAS_CORETYPE $(BIN)/python benchmarks/abuse.py
	env -u OPENBLAS_CORETYPE $(BIN)/python benchmarks/training_speed.py
	env -u OPENBLAS_CORETYPE $(BIN)/python benchmarks/busy_core.py
	env -u OPENBLAS_CORETYPE $(BIN)/python benchmarks/cold_start.py
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/table_reading.py

# Installs nothing: takes the Python of the machine, with CuPy, NumPy, safetensors, threadpoolctl, pytest and hypothesis.
gpu: ## Measure training on a GPU and run the CUDA tests, beside PyTorch and JAX where they are installed.
	PYTHONPATH=core:proto:server:client $(PYTHON) benchmarks/gpu.py

kernels: $(STAMP) ## Compile the CUDA kernels of the reference runs for three GPUs, without one.
	$(BIN)/python -m pip install --quiet --group nvrtc
	$(BIN)/python benchmarks/cuda_kernels.py

format: $(STAMP) ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: $(STAMP) ## Generate what is said of a spec, and the protobuf modules.
	$(BIN)/python tools/generate_spec.py
	$(BIN)/python tools/generate_proto.py

clean: ## Remove the virtual environment and what was built.
	rm -rf $(VENV) build dist

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mlpd needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[server]' --group test --group check
	touch $@

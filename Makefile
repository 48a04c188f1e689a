# Everything stands on one stamp: a virtual environment made from requirements.lock.
.PHONY: demo test check bench lock clean

# Where bytecode is not kept, every process compiles PyTorch and Lightning anew, for longer than many a test runs.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Where a local folder of wheels is configured for pip, uv reads it too; otherwise uv takes PyTorch's CPU build.
TORCH_SOURCE := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),--torch-backend=cpu)

demo: $(STAMP)
	$(BIN)/lacunar demo --out runs/demo

test: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks

lock: $(STAMP)
	echo 'torch==2.13.0+cpu' > $(VENV)/constraints.txt
	$(BIN)/uv pip compile -q pyproject.toml --extra dev --python-version 3.11 -c $(VENV)/constraints.txt \
		$(TORCH_SOURCE) --no-emit-index-url --no-emit-find-links --no-header --no-annotate -o requirements.lock
	sed -i 's/+cpu//' requirements.lock

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps $(TORCH_SOURCE) -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache

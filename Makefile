# `make demo` and `make test` do all set-up themselves: a virtual environment in .venv, requirements, weights and video.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench clean

demo: .venv/ready
	$(BIN)/python main.py

test: .venv/ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q

bench: .venv/ready
	$(BIN)/python -m bench --device cpu --scale 0.5
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.extraction
	$(BIN)/python -m bench.stages --model i3d_inception
	$(BIN)/python -m bench.stages --model slowfast_r50_8x8
	$(BIN)/python -m bench.estimator
	$(BIN)/python -m bench.coverage
	$(BIN)/python -m bench.information
	$(BIN)/python -m bench.loader
	$(BIN)/python -m bench.loader --listing
	$(BIN)/python -m bench.stylize
	$(BIN)/python -m bench.pyramids

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

.venv/ready-test: .venv/ready requirements-test.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-test.txt
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache

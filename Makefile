# `make demo` and `make test` do all set-up themselves: a virtual environment in .venv, requirements, weights and video.
PYTHON ?= python3
BIN := .venv/bin
# Test files are divided between processes, one per core, in the order of tests/conftest.py (slow files first); each
# process computes with one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test check lint types fast coverage package bench atlas clean

demo: .venv/ready
	$(BIN)/python main.py

test: .venv/ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST)

# Fast checks, two at a time: linter, formatter, types, and the tests that tests/slow.py does not list.
check: .venv/ready-test
	$(MAKE) --no-print-directory --keep-going -j 2 fast types lint

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy needs the layout of the installed package: links to all parts inside one folder.
LINKS := .mypy_cache/links
types:
	rm -rf $(LINKS) && mkdir -p $(LINKS)/static_dynamic
	ln -s $(CURDIR)/static_dynamic/*.py $(CURDIR)/static_dynamic/py.typed $(LINKS)/static_dynamic/
	ln -s $(addprefix $(CURDIR)/,configs datasets models stylize analysis misc) $(LINKS)/static_dynamic/
	cd $(LINKS) && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache \
		-p static_dynamic

fast:
	$(PYTEST) -m "not slow"

coverage: .venv/ready-test
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -q
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# The package as users install it: its types, and a small run from another folder.
package: .venv/ready-test
	rm -rf .venv-package build
	$(PYTHON) -m venv .venv-package
	.venv-package/bin/pip install --quiet --disable-pip-version-check --constraint requirements.txt .
	mkdir .venv-package/elsewhere
	cd .venv-package/elsewhere && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache/package --python-executable ../bin/python -p static_dynamic
	cd .venv-package/elsewhere && ../bin/static-dynamic --help >/dev/null
	cd .venv-package/elsewhere && ../bin/static-dynamic model.init=random style=builtin n_examples=2 n_boot=50 n_permutations=20

bench: .venv/ready
	$(BIN)/python -m bench --device cpu --scale 0.5
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench --embedded --no-baseline --clips 4 --models i3d_inception
	$(BIN)/python -m bench.stages --model i3d_inception
	$(BIN)/python -m bench.stages --model slowfast_r50_8x8
	$(BIN)/python -m bench.estimator
	$(BIN)/python -m bench.coverage
	$(BIN)/python -m bench.planning
	$(BIN)/python -m bench.information
	$(BIN)/python -m bench.loader
	$(BIN)/python -m bench.loader --listing
	$(BIN)/python -m bench.stylize
	$(BIN)/python -m bench.pyramids

# Profiles of all networks whose weights come with Python packages (docs/atlas.md); the same command continues a
# stopped one. ARGS=--docs also writes the tables and figures of docs/atlas.md.
atlas: .venv/ready-atlas
	GOMP_SPINCOUNT=10000 $(BIN)/python -m examples.atlas.run $(ARGS)

.venv/ready-atlas: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check 'h5py>=3.10'
	touch $@

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

.venv/ready-test: .venv/ready requirements-test.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-test.txt
	touch $@

clean:
	rm -rf .venv .venv-package build *.egg-info .mypy_cache .pytest_cache .ruff_cache

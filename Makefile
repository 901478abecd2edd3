# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
# What a user exports or keeps here is not linted.
LINTED := src tests benchmarks docs run.py setup.py README.md

.PHONY: demo test docs lint format bench results wheel lock clean

demo: $(INSTALLED)
	$(VENV)/bin/python run.py experiment=demo

test: lint
	$(VENV)/bin/python -m pytest

# The documentation site; build/site/index.html opens in a browser. Its search needs a server:
# python -m http.server --directory build/site. A link that leads nowhere is an error.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

lint: $(INSTALLED)
	$(VENV)/bin/ruff check $(LINTED)
	$(VENV)/bin/ruff format --check $(LINTED)
	$(VENV)/bin/mypy

format: $(INSTALLED)
	$(VENV)/bin/ruff check --fix $(LINTED)
	$(VENV)/bin/ruff format $(LINTED)

# Every table and figure, and outputs/report/index.html; a second call goes on where the first one stopped. On real images:
# make results ON=mini_eight OPTIONS="suite.root=DIR backbone.weights=FILE"; OPTIONS are those of
# run.py, e.g. "hydra/launcher=joblib hydra.launcher.n_jobs=2 threads=1".
ON ?=
OPTIONS ?=
EXPERIMENTS ?= table1_eight_tasks table2_granularity table3_unseen table4_corruption table4_severity \
	table5_labels table6_statistics table6_standardise table6_learners heterogeneous_cnn_into_vit \
	heterogeneous_vit_into_cnn learning_images learning_steps singular_wise singular_wise_features \
	singular_wise_rank singular_wise_vectors transfer released_code

results: $(INSTALLED)
	@for experiment in $(EXPERIMENTS); do \
		$(VENV)/bin/python run.py "experiment=[$(ON:%=%,)$$experiment]" $(OPTIONS) || failed=1; \
		$(VENV)/bin/python run.py job=report job.runs=outputs/$$experiment || failed=1; \
	done; $(VENV)/bin/python run.py job=report; test -z "$$failed"

# Every benchmark at reduced sizes; docs/performance.md has the commands of the full ones.
BENCHMARKS ?= merge step memory layer_statistics throughput startup scaling spectral

bench: $(INSTALLED)
	for benchmark in $(BENCHMARKS); do $(VENV)/bin/python -m benchmarks.$$benchmark --small || exit 1; done

# dist/statsmerging-VERSION-py3-none-any.whl, with the configs (docs/install.md).
wheel: $(INSTALLED)
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# The versions of constraints.txt, with hashes and for every system; UV is the program uv.
UV ?= uv

lock:
	{ printf '%s\n' '# constraints.txt with the sha256 of every file; `make lock` writes it.' \
		'#   pip install --require-hashes --requirement requirements.lock'; \
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--no-annotate --constraint constraints.txt --extra dev pyproject.toml; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

# The stamp makes a second call install nothing; new pins or dependencies refresh it.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

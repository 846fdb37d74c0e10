# Every target sets up .venv first. Variables: make study CORPUS=fsdkaggle2018 DATA=/path PROFILE=quick SEEDS=3
CORPUS  ?= rendered
DATA    ?=
PROFILE ?= quick
SEEDS   ?= 3

# The first interpreter of a supported version.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info[:3] < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
RUN = .venv/bin/python -m
OPTIONS = --corpus "$(CORPUS)" --data "$(DATA)" --profile "$(PROFILE)" --seeds "$(SEEDS)"

# Its own runs begin as a copy of the study's, if there is one; what has changed since is recomputed.
NBVAL = mkdir -p runs/.nbval && { [ -e runs/.nbval/rendered-quick ] || cp -R runs/rendered-quick runs/.nbval/ 2>/dev/null || true; } && \
	INSTRLIB_RUNS="$(CURDIR)/runs/.nbval" $(RUN) pytest -q -p no:xdist --nbval-lax --nbval-cell-timeout=1200

# An environment works only in the folder it was created in; a clone that was moved gets a new one.
IGNORED := $(shell [ "$$(cat .venv/.ready 2>/dev/null)" = "$$(pwd)" ] || rm -f .venv/.ready)

.DEFAULT_GOAL := help
.PHONY: help study publish test nbval lab demo figures report bench notebooks lock

help:  ## list the targets
	@echo "make TARGET [CORPUS=rendered] [DATA=folder] [PROFILE=smoke|quick|full] [SEEDS=3]"
	@sed -n 's/^\([a-z]*\):.*##\(.*\)/  \1\t\2/p' Makefile | expand -t 14

study: .venv/.ready  ## run the study; results are written to runs/
	@$(RUN) instrlib.runner.cli study $(OPTIONS)

publish: .venv/.ready  ## copy a finished study to reports/ and figures/: make publish STUDY=rendered-quick
	@test -n "$(STUDY)" || { echo "Name the study: make publish STUDY=rendered-quick" >&2; exit 1; }
	@$(RUN) instrlib.runner.cli publish "$(STUDY)"

test: .venv/.ready  ## run the tests: the library, a smoke study, the first notebooks
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) pytest -q -n 2 --dist loadfile --no-loadscope-reorder
	@$(NBVAL) $(addprefix notebooks/,01_*.ipynb 02_*.ipynb 03_*.ipynb 14_*.ipynb demo.ipynb)

nbval: .venv/.ready  ## execute all notebooks and compare their checked outputs
	@$(NBVAL) notebooks

lab: .venv/.ready  ## open the notebooks in JupyterLab
	@$(RUN) jupyter lab notebooks

demo: .venv/.ready  ## open a web page for your own recordings
	@$(RUN) instrlib.runner.cli demo

figures: .venv/.ready  ## redraw the figures of a published study from its arrays
	@$(RUN) instrlib.runner.cli figures --corpus "$(CORPUS)" --profile "$(PROFILE)"

report: .venv/.ready  ## write the report of a published study from its results
	@$(RUN) instrlib.runner.cli report --corpus "$(CORPUS)" --profile "$(PROFILE)"

bench: .venv/.ready  ## measure speed against a reference
	@for script in tests/benchmarks/bench_*.py; do .venv/bin/python "$$script" || exit 1; done

notebooks: .venv/.ready  ## for maintainers: run and publish the study shown in the notebooks
	@$(RUN) instrlib.runner.cli study
	@$(RUN) instrlib.runner.cli publish rendered-quick

lock: .venv/.ready  ## for maintainers: update the pinned packages (needs uv)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra test --group build pyproject.toml -o requirements.lock

.venv/.ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is required; install it and run make again." >&2; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version): about 190 packages, 2 GB; a few minutes the first time."
	@$(PYTHON) -m venv --without-pip .venv
	@$(PYTHON) -m pip -q --disable-pip-version-check --python .venv install --no-deps --require-hashes -r requirements.lock
	@.venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null && { \
		$(RUN) pip -q install --no-deps --require-hashes -r requirements-sdist.lock || \
		echo "tinysoundfont could not be compiled, so the built-in corpus cannot be rendered; install a C++ compiler or use Python 3.12."; } || true
	@PYTHONWARNINGS=ignore $(RUN) pip -q --disable-pip-version-check install --no-deps --no-build-isolation --no-index -e .
	@.venv/bin/python -c 'import matplotlib.font_manager'  # builds the font cache now, so that no notebook prints about it
	@pwd > $@

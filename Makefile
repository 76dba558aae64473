# make demo   a trained audio-visual fusion model, its table and its figures
# make test   everything that is checked, here and in CI
# make help   the rest

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEMO   := reports/runs/synth-demo-ca-fold0-seed1

export OMP_NUM_THREADS ?= 2
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.PHONY: help setup demo prepare-demo test twins export lab benchmarks reports
.DEFAULT_GOAL := help

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(READY)  ## everything that is needed, pinned, in .venv

$(READY): constraints.txt pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "avkit needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	@echo "== set-up: a virtual environment in $(VENV), pinned by constraints.txt (about 5 GB, a few minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps facenet-pytorch==2.6.0
	@touch $@

prepare-demo: $(READY)
	@echo "== the demo corpus: rendered, then prepared (faces, sound), once"
	@mkdir -p reports/runs
	$(BIN)/python -m avkit.prepare --dataset synth

demo: prepare-demo  ## render, prepare, train through papermill, table and figures in reports/demo
	@echo "== training: about a minute on two cores"
	@mkdir -p reports/demo
	$(BIN)/papermill nbs/train.ipynb reports/demo/train.ipynb -p fusion ca --log-output --no-progress-bar
	@echo "== scores"
	$(BIN)/python -m avkit.report $(DEMO) --to reports/demo --title "Demo: cross-attention on the rendered corpus"

test: prepare-demo  ## notebooks clean, avkit/ in step, nbdev_test, pytest
	@echo "== notebooks are clean, and avkit/ is what they export"
	$(BIN)/python tests/in_step.py
	@echo "== nbdev_test: every notebook runs"
	OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2 --timing
	@echo "== pytest"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

twins: $(READY)  ## every corpus's stand-in: index, verify, prepare, train; the table in reports/twins
	@for d in ravdess "crema_d --label intended" "crema_d --label consensus" msp_improv "affwild2 --track va" "affwild2 --track expr" vgaf folder; do \
	  echo "== $$d"; \
	  $(BIN)/avkit index --dataset $$d --data_root twin && $(BIN)/avkit verify --dataset $$d --data_root twin && $(BIN)/avkit prepare --dataset $$d --data_root twin || exit 1; \
	done
	OMP_NUM_THREADS=1 $(BIN)/python -m avkit.reports twins

reports: $(READY)  ## every table and figure again, and reports/README.md; finished runs are not repeated, long ones are left to commands of their own
	$(BIN)/avkit reports

export: $(READY)  ## after editing notebooks: avkit/ from nbs/, notebooks cleaned
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean

lab: $(READY)  ## JupyterLab in nbs/
	$(BIN)/jupyter lab --notebook-dir nbs

benchmarks: $(READY)  ## the speed tables
	for b in benchmarks/*.py; do echo "== $$b"; $(BIN)/python $$b; done

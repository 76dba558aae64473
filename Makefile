# make demo   a trained audio-visual fusion model, its table and its figures
# make test   everything that is checked, here and in CI
# make help   the rest

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
INSTALL := $(BIN)/python .setup/install.py
DEMO   := reports/runs/synth-demo-ca-fold0-seed1

export PYDEVD_DISABLE_FILE_VALIDATION := 1
# Python keeps what it has compiled, whatever the machine says: without it, each process of the tests
# compiles PyTorch and transformers anew, ten seconds of a core.
unexport PYTHONDONTWRITEBYTECODE
# A process that crashes says at which line; nbdev_test's last `Starting` without `Completed`, in which notebook.
export PYTHONFAULTHANDLER := 1
# librosa compiles itself in a new environment, and is asked for a few seconds of sound
export NUMBA_OPT := 0

# Three tests run at a time: two cores' worth, since tests wait for disks and processes. One that
# asks for every core then gets one: processes of its own would import everything again, for as
# long as they work. Tests of processes ask for a number of them.
ONE_CORE := LOKY_MAX_CPU_COUNT=1
AT_ONCE  ?= 3
# test_repository is check-style
PYTEST   := $(ONE_CORE) $(BIN)/avkit env $(BIN)/python -m pytest -n $(AT_ONCE) --deselect tests/checks/test_checks.py::test_repository

.PHONY: help setup landmarks demo prepare-demo check check-static check-style check-types test twins export lab benchmarks compare faults reports
.DEFAULT_GOAL := help

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(READY)  ## everything that is needed, pinned, in .venv

$(READY): constraints.txt pyproject.toml Makefile .setup/install.py .lab/ipython_kernel_config.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "avkit needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python && echo "== set-up: $(VENV) is there; what it lacks of constraints.txt is added" || \
	  echo "== set-up: a virtual environment in $(VENV), pinned by constraints.txt (about 6 GB, a minute or two, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -c constraints.txt -e ".[dev]"
	$(INSTALL) --no-deps facenet-pytorch==2.6.0
	@mkdir -p $(VENV)/etc/ipython && cp .lab/ipython_kernel_config.py $(VENV)/etc/ipython/
	@touch $@

landmarks: $(READY)  ## MediaPipe's Face Landmarker (face_landmarker:), an extra of 43 MB; its file is Google's
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps mediapipe==1.2.3

prepare-demo: $(READY)
	@echo "== the demo corpus: rendered, then prepared (faces, sound), once"
	@mkdir -p reports/runs
	$(BIN)/avkit prepare --dataset synth

demo: prepare-demo  ## render, prepare, train through papermill; table and figures in reports/runs/demo
	@echo "== training: about a minute and a half"
	@mkdir -p reports/runs/demo
	$(BIN)/papermill nbs/train.ipynb reports/runs/demo/train.ipynb -p fusion ca -p run_dir $(DEMO) --log-output --no-progress-bar
	@echo "== scores"
	$(BIN)/avkit report $(DEMO) --to reports/runs/demo --title "Demo: cross-attention on the rendered corpus"
	@echo "== the table: reports/runs/demo/table.md (the committed one is made by: avkit reports demo)"

check: check-static  ## in two to five minutes: ruff, exports in step, imports downhill, types, fast tests
	@echo "== the fast tests"
	$(PYTEST) --dist worksteal tests/checks tests/core tests/models

check-static: $(READY)
	@$(MAKE) --no-print-directory -j 2 check-style check-types

check-style: $(READY)
	@echo "== ruff over notebooks, modules, tests and benchmarks"
	$(BIN)/ruff check
	@echo "== notebooks are clean, avkit/ is what they export, parameters are the declared settings"
	$(BIN)/python tests/in_step.py
	$(BIN)/python tests/checks/parameters.py
	@echo "== tables of fusions, papers, encoders and data sets, and notebooks of papers, are what the registries say"
	$(BIN)/python tests/checks/pages.py
	@echo "== imports run downhill, at the top, by public names"
	$(BIN)/python tests/checks/imports.py
	@echo "== one statement a line, none in disguise; the measures of how code reads"
	$(BIN)/python tests/checks/style.py
	$(BIN)/python tests/checks/measures.py --check

check-types: $(READY)  # beside check-style: it takes as long
	@echo "== types"
	$(BIN)/pyright

test: check-static  ## all that CI checks: what `check` does, the other tests, nbdev_test over every notebook
	@echo "== the fast tests, then the others"
	$(PYTEST) --dist loadfile --no-loadscope-reorder tests
	@echo "== nbdev_test: every notebook runs (those that train longest: above, on fewer clips)"
	PYTHONUNBUFFERED=1 $(ONE_CORE) $(BIN)/avkit env $(BIN)/nbdev_test --n_workers $(AT_ONCE) --timing --do_print --skip_file_re '^[_.]|^(compare|own_data|prepare|robustness|train)\.ipynb'

twins: $(READY)  ## every data set, rendered: index, verify, prepare, train; the table in reports/twins
	@$(BIN)/python -c 'from avkit.datasets.registry import as_arguments, variants; print(*map(as_arguments, variants()), sep="\n")' | while read -r d; do \
	  echo "== $$d"; \
	  for step in index verify prepare; do $(BIN)/avkit $$step $$d --data_root rendered < /dev/null || exit 1; done || exit 1; \
	done
	$(BIN)/avkit reports twins

reports: $(READY)  ## every table and figure again, and reports/README.md; finished runs are not repeated, long ones are left to commands of their own
	$(BIN)/avkit reports

export: $(READY)  ## after editing notebooks: avkit/ from nbs/, notebooks cleaned, what is written from registries
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python tests/in_step.py --widgets
	$(BIN)/python tests/checks/parameters.py --write
	$(BIN)/python tests/checks/pages.py --write

lab: $(READY)  ## JupyterLab on the map of the notebooks; more flags: make lab LAB="--no-browser --port 8899"
	$(BIN)/avkit env $(BIN)/jupyter lab --notebook-dir nbs --LabApp.default_url=/lab/tree/README.md --LabApp.app_settings_dir=$(CURDIR)/.lab \
	  $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB)

faults: $(READY)  ## forty minutes: kills, failing disks, races, damaged media, odd input; tests/faults/table.md
	$(BIN)/avkit env $(BIN)/python tests/faults/run.py

benchmarks: $(READY)  ## the speed tables, in less than 20 minutes; benchmarks/README.md
	$(BIN)/python benchmarks/run.py

compare: $(READY)  ## is HEAD slower than BASE? ratios of processor time, in turns: make compare BASE=main~20
	$(BIN)/python benchmarks/compare.py $(or $(BASE),HEAD~1) $(HEAD)

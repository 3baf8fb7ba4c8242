# Two commands do everything on a fresh machine with Python 3.11 (or 3.12) and make:
#   make demo   the whole main job on a sample corpus that it makes itself; ends with the path of the report
#   make test   lint, types and tests
# and `make drill` brings every known fault upon the commands (docs/reliability.md); `make fuzz` tries made input on the readers, 15 minutes
PYTHON ?= python3.11
BIN := .venv/bin
DEMO ?= demo
SEED ?= 1
CLIPS ?= 600
WORKERS ?= 2
# One thread a process: spinning OpenMP threads make two busy processes ten times slower.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export PYTHONUNBUFFERED = 1

.PHONY: demo test lint format clean drill fuzz

demo: .venv/.demo
	@echo "== 1 of 5: the sample corpus (made data) =="
	$(BIN)/python preprocessing/sample_corpus.py --output $(DEMO)/corpus --clips $(CLIPS) --seed $(SEED) --workers $(WORKERS)
	@echo "== 2 of 5: preprocessing, the unlabelled part =="
	$(BIN)/python preprocessing/run.py --corpus voxceleb2 --root $(DEMO)/corpus/unlabelled --output $(DEMO)/unlabelled \
		--reference-transcripts $(DEMO)/corpus/truth.csv --workers $(WORKERS)
	@echo "== 3 of 5: preprocessing, the labelled part =="
	$(BIN)/python preprocessing/run.py --corpus folder --root $(DEMO)/corpus/labelled --output $(DEMO)/labelled \
		--reference-transcripts $(DEMO)/corpus/truth.csv --workers $(WORKERS)
	@echo "== 4 of 5: SKESL pretraining =="
	$(BIN)/accelerate launch --quiet --config_file pretrain/configs/cpu.yaml pretrain/run.py --config pretrain/configs/demo.yaml \
		--data $(DEMO)/unlabelled --output $(DEMO)/skesl
	@echo "== 5 of 5: MUG fine-tuning, its controls and the report =="
	$(BIN)/python finetune/run_mug.py --config finetune/configs/demo.yaml --data $(DEMO)/labelled --encoder $(DEMO)/skesl \
		--output $(DEMO)/mug --workers 3
	@echo "The model on a clip:   $(BIN)/python finetune/predict.py $(DEMO)/corpus/labelled --segments whole --model $(DEMO)/mug"
	@echo "The model on a page:   $(BIN)/python finetune/web.py --model $(DEMO)/mug --data $(DEMO)/labelled"

test: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(DEMO)

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	@test -f .venv/.dev -a .venv/.dev -nt pyproject.toml -a .venv/.dev -nt constraints.txt \
		|| $(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[demo,web]'
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[dev]'
	@touch $@

drill: .venv/.dev
	$(BIN)/python -m tests.drill --table docs/reliability.md

fuzz: .venv/.dev
	$(BIN)/python -m tests.drill fuzz --minutes 3 --table docs/reliability.md

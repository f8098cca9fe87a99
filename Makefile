PYTHON ?= python3
VENV ?= .venv
SEED ?= 0
BIN := $(VENV)/bin
RUN_DIR := outputs/quick/$(shell date +%Y-%m-%d_%H-%M-%S)

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(BIN)/.installed  ## make a virtual environment with l2lgd and all its extras

$(BIN)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev,embedded,baselines,sweeps,tensorboard,docs]'
	touch $@

run: install  ## meta-train on MNIST for some minutes, compare with tuned optimizers, leave a picture
	$(BIN)/l2lgd meta-train task=mnist opt=lstm experiment=mnist_quick seed=$(SEED) \
		hydra.run.dir=$(RUN_DIR)/meta-train
	$(BIN)/l2lgd evaluate task=mnist opt=lstm hydra.run.dir=$(RUN_DIR)/evaluate \
		checkpoint=$(RUN_DIR)/meta-train/checkpoints/best.safetensors
	@echo "the picture: $(RUN_DIR)/evaluate/curves.png"

RESULTS := quadratic mnist mnist_40 mnist_two_layers mnist_relu
EVALUATE := $(BIN)/l2lgd evaluate logger=none seed=1 tuned_dir=l2lgd/pretrained/shipped/tuned

results: install  ## evaluate the shipped optimizers, as in outputs/results (half an hour)
	for task in $(RESULTS); do \
		$(EVALUATE) task=$$task hydra.run.dir=outputs/results/$$task || exit; \
	done
	$(EVALUATE) task=mnist num_steps=200 hydra.run.dir=outputs/results/mnist_200_steps

SUBSETS := cifar5 cifar2
BASELINES := sgd,rmsprop,adam,nag

cifar: install  ## the same for the convnets of CIFAR-10 and its subsets, 20 functions each (five hours)
	$(EVALUATE) task=cifar10 num_functions=20 hydra.run.dir=outputs/results/cifar10
	for task in $(SUBSETS); do \
		$(EVALUATE) task=$$task num_functions=20 "baselines=[lstm_sub,$(BASELINES)]" \
			hydra.run.dir=outputs/results/$$task || exit; \
	done

VGG ?= torchvision

art: install  ## neural art: evaluate on 50 photographs (hours; VGG=FILE, see docs/results/neural-art.md)
	for task in neural_art neural_art_large; do \
		$(EVALUATE) task=$$task num_functions=50 threads=1 task.vgg.weights=$(VGG) \
			hydra.run.dir=outputs/results/$$task || exit; \
	done

FIGURE ?= all
SCALE ?= small
OVERLAY ?= none
STYLE ?= paper
FIGURES := $(BIN)/l2lgd figures "figure=$(FIGURE)" vgg=$(VGG) figures.overlay=$(OVERLAY) \
	figures.style=$(STYLE)
# What is committed takes the slow losses from outputs/results, where they are kept.
KEPT := $(addprefix outputs/results/,cifar10 $(SUBSETS) neural_art neural_art_large)
COMMA := ,
EMPTY :=
REUSE_committed := "reuse=[$(subst $(EMPTY) $(EMPTY),$(COMMA),$(KEPT))]"

figures: install  ## draw the paper's figures (FIGURE=all, SCALE=small|paper, OVERLAY=paper, STYLE=colour_blind, VGG=FILE)
	$(FIGURES) scale=$(SCALE) $(REUSE_$(SCALE))

benchmark: install  ## the shipped optimizers on tasks that none was trained for (an hour on two cores)
	$(BIN)/l2lgd benchmark hydra.run.dir=outputs/results/benchmark
	$(BIN)/l2lgd benchmark suite=generalisation hydra.run.dir=outputs/results/generalisation

redraw: install  ## draw the pictures in outputs/ again from their tables (a minute, evaluates nothing)
	$(BIN)/python scripts/tools/redraw.py
	$(BIN)/python scripts/studies/sharing.py --redraw

reproduce: install  ## meta-train every shipped optimizer again, then draw (hours; says how many first)
	$(BIN)/python scripts/tools/reproduce.py --scale $(SCALE) $(if $(filter torchvision,$(VGG)),,--vgg $(VGG))

sharing: install  ## what sharing information between coordinates is worth, as in outputs/results/sharing
	$(BIN)/python scripts/studies/sharing.py

bench: install  ## a meta-step against the textbook loop, seconds and memory (under five minutes)
	$(BIN)/python scripts/bench/meta_step.py

gpu: install  ## try and measure everything on a GPU: outputs/gpu (eight minutes at most)
	$(BIN)/python scripts/bench/gpu.py

# A worker takes one file after the other, in the order of tests/conftest.py.
ON_TWO_CORES := -n 2 --dist loadfile --no-loadscope-reorder

test: install lint  ## lint, then run the tests
	$(BIN)/pytest $(ON_TWO_CORES)

test-all: install lint  ## the same with every pair of cases, of which test has each part once (an hour)
	TEST_ALL=1 $(BIN)/pytest $(ON_TWO_CORES)

lint: install  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  ## build the documentation's site in build/site
	$(BIN)/python scripts/tools/config_reference.py
	$(BIN)/python scripts/tools/package_page.py
	$(BIN)/python scripts/tools/python_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

build: install  ## sdist and wheel in dist/
	$(BIN)/python -m build

clean:  ## remove the virtual environment and caches, keep outputs
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

.PHONY: help install run results cifar art figures benchmark redraw reproduce sharing bench test test-all lint docs build clean

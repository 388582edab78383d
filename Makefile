# Daily jobs. Each target is one line; the work is in tools/, readable and tested.
# Another Python: make lab PYTHON=python3.12
PYTHON ?= python3
RUN    := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup extras lab reset update test assignments grade class mistakes book teacher results contents notebooks bench method chapter lock stamp wheel clean

help:       ## show this list
	@sed -n 's/^\([a-z]*\): *.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

setup:      ## install everything into .venv (every other target does it first)
	@$(PYTHON) tools/set_up.py

extras:
	@$(PYTHON) tools/set_up.py class

lab: setup  ## fetch data and open JupyterLab on the contents page
	@$(RUN) -m course_lib.material.assets
	@$(RUN) tools/lab.py

reset: setup  ## a chapter as it came, with your answers put back in: make reset CHAPTER=ch01
	@$(RUN) tools/renew.py "$(CHAPTER)"

update: setup  ## the newest course (git pull); the answers in your chapters stay
	@$(RUN) tools/renew.py update

test: extras  ## check the course, and print a table of it; make test ALL=1 leaves nothing out
	@$(RUN) tools/check.py $(if $(ALL),--all)

assignments: extras  ## for a class: release notebooks and hidden tests in class/ (see the instructor's page)
	@PYTHONPATH=tools $(RUN) -m classroom assignments

grade: extras  ## for a class: grade every file in a folder: make grade SUBMISSIONS=folder
	@PYTHONPATH=tools $(RUN) -m classroom grade $(if $(DASK),--dask $(DASK)) "$(SUBMISSIONS)"

class: extras  ## grade a simulated class of 100 and check every score
	@$(RUN) tests/simulated_class.py

mistakes: setup  ## switch on every known mistake and demand that a test notices
	@$(RUN) tools/mistakes.py

book: setup  ## build the book from the committed notebooks: pages, a zip of them and a PDF in book/_build
	@$(RUN) tools/book.py

contents: setup  ## write the tables of chapters on all pages from notebooks/chapters.toml
	@$(RUN) tools/contents.py

notebooks: setup  ## run the chapters whose text, library, data or versions changed
	@$(RUN) -m course_lib.material.assets
	@$(RUN) tools/contents.py
	@$(RUN) tools/notebooks.py build

teacher: setup  ## train the teachers again and ask them (about an hour and a half without a GPU)
	@$(RUN) -m course_lib.material.teachers
	@$(RUN) -m course_lib.experiments.few_labels

results: setup  ## measure the numbers of the chapters' tables again, over several seeds
	@$(RUN) -m course_lib.experiments

bench: setup  ## measure how fast and small the models are, and what teaching costs (ten quiet minutes)
	@$(RUN) -m course_lib.experiments.speed

method:     ## make the files of a new method, with tests that fail until it is done: make method NAME=fitnets
	@$(PYTHON) tools/scaffold.py method "$(NAME)"

chapter:    ## make the files of a new chapter in the same way: make chapter NAME=ch11_fitnets
	@$(PYTHON) tools/scaffold.py chapter "$(NAME)"

lock: setup  ## write constraints.txt and environment.yml from what is installed
	@$(RUN) tools/lock.py

stamp: setup  ## write the repository address of pyproject.toml into every setup line and badge
	@$(RUN) tools/notebooks.py stamp
	@$(RUN) tools/badges.py

wheel: setup  ## build dist/course_lib-*.whl, for machines without this folder
	@$(RUN) -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:      ## remove the environment and everything that was built
	rm -rf .venv book/_build dist

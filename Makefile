# Two commands for users: make reproduce, make test. Each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
PRESET ?= quick
ONLY ?=
NB ?=

.PHONY: reproduce reference test lab slides setup filter lock lint dot chromium
reproduce: setup
	$(BIN)/sswp reproduce --preset $(PRESET) $(foreach n,$(ONLY),--only $(n))

# For maintainers: replaces the tracked results in figures/$(PRESET)/ by what was reproduced.
reference: setup
	$(BIN)/sswp publish --preset $(PRESET)

# Two processes of one thread each: networks as small as the tests' gain nothing from a second one.
test: setup chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Opens copies of the notebooks, once made never overwritten: what JupyterLab saves is yours, and nothing tracked changes.
lab: setup
	@mkdir -p notebooks/own && for n in notebooks/[0-9]*.ipynb; do [ -e "notebooks/own/$${n##*/}" ] || cp "$$n" notebooks/own/; done
	@cp notebooks/GLOSSARY.md notebooks/own/
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/own/00_tour.ipynb

# Slides of all notebooks, or of one (NB=01), in figures/own/slides/: of executed copies where there are some. Figures are in the files; reveal.js
# and MathJax come from the network when one is opened, for nbconvert cannot embed them: without it the slides stand below one another. For a room
# without a network open NAME.html?print-pdf beforehand, and print it to a file.
slides: setup
	$(BIN)/python -m sswp_lib.lab.slides "$(PRESET)" "$(NB)"

setup: .venv/done filter dot

.venv/done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
ifeq ($(shell uname -sm),Linux x86_64)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
else
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
endif
	touch $@

# Notebooks that were run do not show as changed (see .gitattributes); as they are where there is no .venv.
CLEAN := if [ -x $(BIN)/python ] && [ -f sswp_lib/lab/strip.py ]; then $(BIN)/python -I sswp_lib/lab/strip.py; else cat; fi
JUPYTER := .venv/etc/jupyter/jupyter_server_config.d
filter:
	@if [ -e .git ] && command -v git >/dev/null; then git config filter.notebook.clean '$(CLEAN)' && git config filter.notebook.required false; fi
	@mkdir -p $(JUPYTER) && echo '{"FileContentsManager": {"post_save_hook": "sswp_lib.lab.strip.saved"}}' > $(JUPYTER)/sswp.json

# Graphviz's program draws the cells; without it matplotlib does.
dot:
	@command -v dot >/dev/null || { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq graphviz >/dev/null; } \
	|| echo "The program dot (graphviz) is missing: cells will be drawn by matplotlib. Install it with: sudo apt install graphviz, brew install graphviz, or conda install graphviz"

# The tests open JupyterLab and the report's page in it; without it they leave that out.
chromium:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit; done; \
	{ command -v apt-get && [ "$$(id -u)" = 0 ] && apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } >/dev/null 2>&1 \
	|| echo "The program chromium is missing: what is seen in a browser will not be tested. Install it with: sudo apt install chromium"

# Exact versions for repeatability on Linux, made from pyproject.toml; elsewhere pip chooses within its bounds. (soupsieve 3 asks for more than Python 3.11.2;
# jsonschema 4.25 brings a grammar that takes two seconds to load, at every start of papermill.)
lock:
	$(BIN)/python -m piptools compile --quiet --strip-extras --allow-unsafe --extra dev --no-emit-index-url --no-emit-find-links --no-header --upgrade-package 'soupsieve<3' --upgrade-package 'jsonschema<4.25' --output-file requirements.lock pyproject.toml

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

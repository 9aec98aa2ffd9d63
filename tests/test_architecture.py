"""The house stands as it was drawn: imports run downwards only, files are short, nothing is evaluated or unpickled."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import sswp_lib

PACKAGE = Path(sswp_lib.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = [
    "settings", "processes", "methods", "config", "presets", "space", "learn", "runs", "paper", "show", "lab",
    "options", "cli",
]  # fmt: skip
SPACE = [
    ["genotype", "small"],
    ["depthwise"],
    ["ops"],
    ["planted"],
    ["cell", "paths"],
    ["spaces"],
    ["supernet", "mixed", "network", "bench201", "resnest"],
    ["cells", "texts"],
]  # downwards; beside one another where in one list
PROJECT = PACKAGE.parent / "pyproject.toml"
ENVIRONMENT = PACKAGE.parent / "environment.yml"
CONDA_NAMES = {"torch": "pytorch", "graphviz": "python-graphviz"}


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(file: Path) -> set[str]:
    """Return every module that a file imports, wherever in the file, as dotted names; `from a import b` gives a and
    a.b.
    """
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} has a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def own(file: Path) -> list[list[str]]:
    """Return the imported modules of this package, as parts after "sswp_lib"."""
    return [name.split(".")[1:] for name in imports(file) if name.startswith("sswp_lib.")]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_run_downwards(file):
    room = (name_of(file).split(".")[1:] or [""])[0]
    if room not in ROOMS:  # the package itself and its entry point
        return
    above = [".".join(parts) for parts in own(file) if parts[0] in ROOMS and ROOMS.index(parts[0]) > ROOMS.index(room)]
    assert above == []
    if room == "settings":
        assert own(file) == []


@pytest.mark.parametrize("file", sorted(PACKAGE.glob("space/[a-z]*.py")), ids=name_of)
def test_imports_run_downwards_inside_space(file):
    floor = {module: i for i, modules in enumerate(SPACE) for module in modules}
    used = {parts[1] for parts in own(file) if parts[0] == "space" and len(parts) > 1}
    assert used <= set(floor), "through the room's own door"
    assert [module for module in used if floor[module] >= floor[file.stem]] == []


def test_every_file_of_space_has_its_floor():
    assert {file.stem for file in PACKAGE.glob("space/[a-z]*.py")} == {
        module for modules in SPACE for module in modules
    }


@pytest.mark.parametrize("name", ["show/plots", "paper/tables", "paper/claims"])
def test_figures_tables_and_claims_read_records_never_models(name):
    found = {module for module in imports(PACKAGE / f"{name}.py") if not module.startswith("sswp_lib.config")}
    models = {"SuperNet", "Network", "Search", "Training"}
    assert not {
        module
        for module in found
        if module.split(".")[0] in ("torch", "torchvision") or module.split(".")[-1] in models
    }
    assert not {
        ".".join(parts)
        for parts in own(PACKAGE / f"{name}.py")
        if parts[:2] in (["space", "supernet"], ["space", "network"], ["learn", "search"], ["learn", "train"])
    }


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_stay_short(file):
    assert len(file.read_text().splitlines()) <= 400


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_is_evaluated_or_unpickled(file):
    """No eval() or exec(), nothing read by pickle (its errors may be caught), no torch.load without
    weights_only=True.
    """
    assert not {
        module
        for module in imports(file)
        if module.split(".")[0] in ("dill", "cloudpickle", "joblib", "marshal", "shelve")
        or module.startswith("pickle.load")
    }
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in ("eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler"), f"line {node.lineno}"
        if called == "torch.load":
            assert [ast.unparse(k.value) for k in node.keywords if k.arg == "weights_only"] == ["True"], (
                f"line {node.lineno}"
            )


def specified(requirement: str) -> tuple[str, str]:
    """Return (name, version specifier) of "name>=1.2"; the name in lower case, with hyphens."""
    name, specifier = re.fullmatch(r"\s*([A-Za-z0-9._-]+?)\s*((?:[<>=!~].*)?)", requirement).groups()
    return re.sub(r"[-_.]+", "-", name).lower(), specifier.replace(" ", "")


def test_environment_and_project_ask_for_the_same():
    project = tomllib.loads(PROJECT.read_text())["project"]
    expected = {specified(requirement) for requirement in project["dependencies"]} | {
        ("python", project["requires-python"])
    }
    expected = {(CONDA_NAMES.get(name, name), version) for name, version in expected}
    lines = re.findall(r"^  - (.+?)\s*(?:#.*)?$", ENVIRONMENT.read_text().split("dependencies:")[1], re.MULTILINE)
    found = {specified(line) for line in lines if line not in ("pip", "pip:")}
    assert found == expected

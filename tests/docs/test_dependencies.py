"""docs/dependencies.md: every dependency has its line, and is really used."""

import ast
import re
import tomllib
from importlib.metadata import packages_distributions

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> list[str]:
    """The distributions that are required, without extras, bounds, and ourselves."""
    found = [re.match(r"[A-Za-z0-9_.-]+", requirement)[0] for requirement in requirements]
    return [name for name in found if name != "mailsuite"]


RUNTIME = names(PROJECT["dependencies"])
EXTRAS = names([one for extra in PROJECT["optional-dependencies"].values() for one in extra])


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """The distributions whose modules the package imports, in lower case."""
    distributions = packages_distributions()
    found: set[str] = set()
    for path in (ROOT / "mailsuite").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return {name.lower().replace("_", "-") for module in found for name in distributions.get(module, [])}


@pytest.mark.parametrize("name", RUNTIME)
def test_runtime_dependency_is_used(name, imported):
    assert name.replace("_", "-") in imported


@pytest.mark.parametrize("name", [*RUNTIME, *EXTRAS])
def test_dependency_has_its_line(name):
    assert re.search(rf"^\|[^|]*`{re.escape(name)}(?:\[\w+\])?`", PAGE, re.MULTILINE)


def test_page_names_no_others():
    named = set(re.findall(r"^\| `([a-z.0-9-]+)(?:\[\w+\])?` \|", PAGE, re.MULTILINE))
    assert len(named) >= 5
    assert named <= {*RUNTIME, *EXTRAS}

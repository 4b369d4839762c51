"""What an installation gives: wheel, sdist and editable install, each tried in a venv of its own.

Everything is built in a copy of the tree, so the tree stays as it is, and without isolation, so no network is
needed. The new venvs see the libraries of the running one by a .pth line; its own .pth files are not followed
from there, so the mailsuite that they find is the one just installed.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import mailsuite

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NOT_COPIED = shutil.ignore_patterns(
    ".git",
    ".venv",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "var",
    "build",
    "dist",
    "*.egg-info",
    "dropin.cache",
)
# twistd has no script in the new venvs; this is what its script does.
TWISTD = "from twisted.scripts.twistd import run; run()"


def run(command: list[str | Path], cwd: Path) -> str:
    """Run a command away from the tree and return what it printed; fail with its output."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("copy") / "mailsuite", ignore=NOT_COPIED)


@pytest.fixture(scope="module")
def dist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from the sdist, as for a release."""
    directory = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, tree], directory)
    return directory


def one(directory: Path, pattern: str) -> Path:
    [found] = directory.glob(pattern)
    return found


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that installs what pip is told to install into a new venv, and returns its bin."""

    def into_new_venv(*what: str | Path) -> Path:
        place = tmp_path / "venv"
        venv.create(place, with_pip=False, symlinks=True)
        python = place / "bin" / "python"
        packages = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path).strip()
        (Path(packages) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
        run([*pip, "--no-deps", "--no-build-isolation", "--ignore-installed", *what], tmp_path)
        return place / "bin"

    return into_new_venv


def check_installation(bin_: Path, cwd: Path) -> None:
    """Verify that the plugin is found, that its lazily named module loads, and that the command runs."""
    plugins = run([bin_ / "python", "-c", TWISTD, "--help"], cwd)
    assert [line.split()[0] for line in plugins.splitlines() if "mailsuite" in line] == ["mailsuite"]
    assert "--config" in run([bin_ / "python", "-c", TWISTD, "mailsuite", "--help"], cwd)
    assert mailsuite.__version__ in run([bin_ / "mailsuite", "--version"], cwd)


def test_wheel_is_usable(dist: Path, install: Callable[..., Path], tmp_path: Path) -> None:
    check_installation(install(one(dist, "*.whl")), tmp_path)


def test_sdist_is_usable(dist: Path, install: Callable[..., Path], tmp_path: Path) -> None:
    check_installation(install(one(dist, "*.tar.gz")), tmp_path)


def test_editable_install_is_usable(tree: Path, install: Callable[..., Path], tmp_path: Path) -> None:
    bin_ = install("--editable", tree)
    check_installation(bin_, tmp_path)
    found = run([bin_ / "python", "-c", "import mailsuite; print(mailsuite.__file__)"], tmp_path)
    assert Path(found.strip()) == tree / "mailsuite" / "__init__.py"


def test_wheel_holds_the_package_and_nothing_else(dist: Path) -> None:
    names = zipfile.ZipFile(one(dist, "*.whl")).namelist()
    held = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "mailsuite").rglob("*.py")}
    data = {name for name in held if name.startswith("mailsuite/") and not name.endswith(".py")}
    assert held - data == modules | {"twisted/plugins/mailsuite_plugin.py"}
    assert "mailsuite/py.typed" in data
    assert {Path(name).suffix for name in data} <= {".typed", ".toml", ".sql"}
    assert any(name.endswith("licenses/LICENSE") for name in names)

"""The architecture, checked: who may import whom, what stays free of I/O, how large a file may be.

The table ROOMS is the one-way rule. Imports are read with ast wherever they stand: in functions, and
for types only as well, because a type that is needed from above shows a dependency as plainly as a call does.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "mailsuite"
MAX_LINES = 500

TOP = frozenset({"__main__", "admin", "service", "tap"})  # where all is joined: may import every room, and the reactor
LOW = frozenset({"mail", "interfaces"})  # what every room but wire may import
# Each room (a package or a module right under mailsuite/) and the rooms it may import besides itself.
# mail <- wire <- session <- net <- delivery <- admin, service; the stores hang on interfaces alone.
ROOMS: dict[str, frozenset[str]] = {
    "mail": frozenset(),
    "interfaces": frozenset({"mail"}),
    "config": LOW,
    "spool": LOW,
    "store": LOW,
    "accounts": LOW,
    "policy": LOW,
    "wire": frozenset({"mail"}),
    "session": LOW | {"wire"},
    "net": LOW | {"wire", "session"},
    "delivery": LOW | {"wire", "session", "net"},
    "embedding": LOW | {"wire", "session", "net", "delivery", "spool"},  # as service, for others' programs
    "plugins": LOW | {"delivery", "store"},  # where an agent is joined with its store
}
EVERY_ROOM = frozenset(ROOMS) | TOP

# Values and cores know no I/O: nothing of Twisted, no sockets, threads or processes.
PURE = frozenset({"mail", "wire"})
IMPURE_LIBRARIES = frozenset(
    {"OpenSSL", "asyncio", "multiprocessing", "select", "selectors", "socket", "sqlite3", "ssl"}
    | {"subprocess", "threading", "twisted"}
)
# Where the global reactor hides: its own module, and a function that looks it up by itself.
GLOBAL_REACTOR = ("twisted.internet.reactor", "twisted.internet.threads.deferToThread")
# Imports that ast cannot follow.
DYNAMIC = ("__import__", "importlib.import_module", "importlib.__import__")


class Source(NamedTuple):
    """One module of the package, parsed."""

    name: str  # dotted
    path: Path
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        return self.name.partition(".")[2].partition(".")[0]


def read_package(package: Path) -> list[Source]:
    sources = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        sources.append(Source(name, path, ast.parse(text, str(path)), len(text.splitlines())))
    return sources


def imported_names(tree: ast.Module) -> list[tuple[int, str]]:
    """Return line and full name of each import: `from a import b` gives a.b, as `import a.b` does."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return names


def used_names(tree: ast.Module) -> list[tuple[int, str]]:
    """Return line and full name of what is imported or reached through it, such as threads.deferToThread."""
    bound = {"__import__": "__import__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                bound[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and node.module:
            bound |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    used = imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)):
            root, dot, rest = ast.unparse(node).partition(".")
            if root in bound:
                used.append((node.lineno, bound[root] + dot + rest))
    return used


def room_faults(source: Source) -> list[str]:
    """Return the imports that the table ROOMS does not allow."""
    if source.name == "mailsuite":
        allowed = frozenset[str]()
    elif source.room in TOP:
        allowed = EVERY_ROOM
    elif source.room in ROOMS:
        allowed = ROOMS[source.room] | {source.room}
    else:
        return [f"room {source.room} is not in the table ROOMS"]
    allowed |= {"__version__"}
    faults = {}
    # What is used counts, not only what is imported: `import mailsuite` opens every room already loaded.
    for line, name in used_names(source.tree):
        package, _, inner = name.partition(".")
        room = inner.partition(".")[0]
        if package == "mailsuite" and room and room not in allowed:
            faults.setdefault(room, f"line {line}: {source.room or 'the root'} may not import {room}")
        elif package in IMPURE_LIBRARIES and source.room in PURE:
            faults.setdefault(package, f"line {line}: {source.room} is free of I/O, so not {package}")
    return list(faults.values())


def reactor_faults(source: Source) -> list[str]:
    """Return where a module reaches for the global reactor, which only those at the top may do."""
    return [
        f"line {line}: {name}: reactors come in by constructor"
        for line, name in used_names(source.tree)
        if name in GLOBAL_REACTOR and source.room not in TOP
    ]


def disguise_faults(source: Source) -> list[str]:
    """Return the imports that cannot be followed from the text: relative, starred, computed."""
    faults = [
        f"line {line}: {name} hides what is imported"
        for line, name in imported_names(source.tree)
        if name.startswith(".") or name.endswith(".*")
    ]
    return faults + [
        f"line {line}: {name} hides what is imported" for line, name in used_names(source.tree) if name in DYNAMIC
    ]


def cycle(sources: list[Source]) -> list[str]:
    """Return the modules of one import cycle, in order, or nothing.

    That a submodule runs its package's __init__ is not counted; to import a name from it is.
    """
    modules = {source.name for source in sources}
    graph: dict[str, set[str]] = {}
    for source in sources:
        targets = graph.setdefault(source.name, set())
        for _, name in imported_names(source.tree):
            targets |= {name, name.rpartition(".")[0]} & modules if name not in modules else {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def style_faults(source: Source) -> list[str]:
    """Return what breaks the limits on files: length, and an __init__ that does more than re-export."""
    faults = [f"{source.lines} lines, more than {MAX_LINES}"] if source.lines > MAX_LINES else []
    if source.path.name != "__init__.py":
        return faults
    if ast.get_docstring(source.tree) is None:
        faults.append("an __init__ without a docstring")
    for node in source.tree.body[1:]:
        match node:
            case ast.ImportFrom(module=module) if str(module).split(".")[0] == "mailsuite":
                pass
            case _ if source.room == "plugins":
                pass  # extends its __path__, so that other distributions may add plugins: see twisted.plugin
            case ast.Assign(targets=[ast.Name(id="__all__" | "__version__")]):
                pass
            case _:
                faults.append(f"line {node.lineno}: an __init__ holds a docstring and re-exports only")
    return faults


def faults_of(package: Path) -> list[str]:
    sources = read_package(package)
    faults = [
        f"{source.path.relative_to(package.parent)}: {fault}"
        for source in sources
        for check in (room_faults, reactor_faults, disguise_faults, style_faults)
        for fault in check(source)
    ]
    if modules := cycle(sources):
        faults.append("import cycle: " + " -> ".join(modules))
    return faults


def test_package_keeps_the_rules() -> None:
    assert "\n".join(faults_of(PACKAGE)) == ""


def plant(root: Path, files: dict[str, str]) -> Path:
    """Write a small package that keeps the rules, with the given files added or replaced."""
    good = {
        "__init__.py": '"""Docstring."""\n\n__version__ = "1"\n',
        "mail/__init__.py": '"""Docstring."""\nfrom mailsuite.mail.reply import Reply\n__all__ = ["Reply"]\n',
        "mail/reply.py": "class Reply: ...\n",
        "wire/__init__.py": '"""Docstring."""\n',
        "wire/core.py": "import re\n\nfrom mailsuite.mail import Reply\nselect = Reply()\nselect.ed\n",
        "net/driver.py": "from twisted.internet import defer\n\nfrom mailsuite.wire.core import Reply\n",
        "admin/command.py": "import mailsuite\nprint(mailsuite.__version__)\n",
        "service.py": "import mailsuite.net.driver\ndef run():\n    from twisted.internet import reactor\n",
    }
    for name, text in (good | files).items():
        path = root / "mailsuite" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root / "mailsuite"


def test_checker_passes_a_package_that_keeps_the_rules(tmp_path: Path) -> None:
    assert faults_of(plant(tmp_path, {})) == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("mail/a.py", "import mailsuite.wire.core", "mail may not import wire"),
        ("mail/a.py", "from mailsuite import wire", "mail may not import wire"),
        ("wire/a.py", "def f():\n    from mailsuite.session import inbound", "wire may not import session"),
        ("wire/a.py", "from mailsuite.interfaces import ISpool", "wire may not import interfaces"),
        (
            "session/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mailsuite.net import driver",
            "line 3: session may not import net",
        ),
        ("spool/a.py", "from mailsuite.store.maildir import Maildir", "spool may not import store"),
        ("store/a.py", "from mailsuite.config import Settings", "store may not import config"),
        ("accounts/a.py", "from mailsuite.policy import limits", "accounts may not import policy"),
        ("delivery/a.py", "from mailsuite.spool.sqlite import SqliteSpool", "delivery may not import spool"),
        ("net/a.py", "import mailsuite\nmailsuite.spool.sqlite.open()", "net may not import spool"),
        ("interfaces.py", "from mailsuite.wire import core", "interfaces may not import wire"),
        ("config/a.py", "from mailsuite.net import tls", "config may not import net"),
        ("__init__.py", '"""Docstring."""\nfrom mailsuite.mail import Reply', "the root may not import mail"),
        ("attic/a.py", "import re", "room attic is not in the table"),
        ("net/a.py", "from . import driver", "hides what is imported"),
        ("net/a.py", "from ..spool import sqlite", "hides what is imported"),
        ("net/a.py", "from mailsuite.mail import *", "hides what is imported"),
        ("net/a.py", "import importlib as i\ni.import_module('mailsuite.admin')", "hides what is imported"),
        ("net/a.py", "__import__('mailsuite.admin')", "hides what is imported"),
        ("mail/a.py", "import socket", "free of I/O, so not socket"),
        ("wire/a.py", "from twisted.python import log", "free of I/O, so not twisted"),
        ("net/a.py", "from twisted.internet import reactor", "reactors come in by constructor"),
        ("net/a.py", "import twisted.internet.reactor as r", "reactors come in by constructor"),
        ("net/a.py", "import twisted.internet\ntwisted.internet.reactor.run()", "come in by constructor"),
        ("net/a.py", "from twisted import internet as i\ni.reactor.run()", "come in by constructor"),
        ("spool/a.py", "from twisted.internet.threads import deferToThread as d", "come in by constructor"),
        ("spool/a.py", "from twisted.internet import threads\nthreads.deferToThread(f)", "by constructor"),
        ("mail/reply.py", "from mailsuite.mail import Reply", "import cycle"),
        ("net/a.py", "\n" * 501, "501 lines"),
        ("net/__init__.py", "from mailsuite.net.driver import Driver", "without a docstring"),
        ("net/__init__.py", '"""Docstring."""\n\nLIMIT = 1\n', "docstring and re-exports only"),
        ("net/__init__.py", '"""Docstring."""\n\nimport re\n', "docstring and re-exports only"),
    ],
)
def test_checker_finds_a_planted_fault(tmp_path: Path, name: str, text: str, fault: str) -> None:
    found = faults_of(plant(tmp_path, {name: text}))
    assert len([one for one in found if fault in one]) == 1, found


def test_checker_names_every_module_of_a_cycle(tmp_path: Path) -> None:
    package = plant(
        tmp_path,
        {
            "net/a.py": "from mailsuite.net.b import B",
            "net/b.py": "from mailsuite.net.c import C",
            "net/c.py": "def late():\n    import mailsuite.net.a",
        },
    )
    [found] = faults_of(package)
    assert {"mailsuite.net.a", "mailsuite.net.b", "mailsuite.net.c"} <= set(found.split())


def test_importing_the_package_is_light() -> None:
    # A console command starts as fast as its imports: the root pulls in neither Twisted nor a room.
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    assert [name for _, name in imported_names(tree)] == []

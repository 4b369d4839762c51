"""Fixtures with whole servers of ours: one for a module, or as many as a test wants. See `tests.instance`.

A test whose server has logged a traceback fails, whatever else it has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.instance import Instance


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """One instance with its defaults for all tests of a module, with the accounts alice, bob and jörg."""
    with Instance(tmp_path_factory.mktemp("server"), users=("alice", "bob", "jörg")) as instance:
        yield instance
    instance.check_log()


@pytest.fixture
def instances(tmp_path: Path) -> Iterator[Callable[..., Instance]]:
    """Start instances by the arguments of `Instance`; their directories are named after their domains."""
    started: list[Instance] = []

    def start(domain: str = "a.test", **arguments: Any) -> Instance:
        instance = Instance(tmp_path / domain, domain, **arguments)
        started.append(instance)
        instance.start()
        return instance

    yield start
    for instance in started:
        instance.stop()
    for instance in started:
        instance.check_log()

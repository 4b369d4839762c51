"""A directory in a temporary file, with cheap hashes, and ways to run blocking work without a reactor."""

import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import argon2
import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from mailsuite.accounts.directory import DirectoryFile
from mailsuite.accounts.passwords import PasswordCost
from mailsuite.accounts.portal import Authenticator
from mailsuite.accounts.reader import DirectoryReader

CHEAP = PasswordCost(time_cost=1, memory_kib=8)


def at_once(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """A thread that is done before anybody looks."""
    return execute(function, *arguments)


def in_real_thread(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """A thread, waited for here."""
    answers: list[Deferred[Any]] = []
    thread = threading.Thread(target=lambda: answers.append(execute(function, *arguments)))
    thread.start()
    thread.join()
    return answers[0]


class HeldThreads:
    """Threads that end when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        # As with a real thread, cancelling the Deferred does not stop the work.
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, lambda: function(*arguments)))
        return done

    def end_one(self) -> None:
        done, work = self.waiting.pop(0)
        execute(work).chainDeferred(done)


def result_of(coroutine: Coroutine[Any, Any, Any] | Deferred[Any]) -> Any:
    """What a coroutine that need not wait returns, or raises."""
    deferred = coroutine if isinstance(coroutine, Deferred) else Deferred.fromCoroutine(coroutine)
    results: list[Any] = []
    failures: list[Any] = []
    deferred.addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    [result] = results
    return result


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "accounts.db"


@pytest.fixture
def directory(path: Path) -> Iterator[DirectoryFile]:
    """An open directory with the domain example.org."""
    with DirectoryFile(path, create=True, cost=CHEAP) as opened:
        opened.add_domain("example.org")
        yield opened


@pytest.fixture
def reader(path: Path) -> Iterator[DirectoryReader]:
    opened = DirectoryReader(path)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(make: Callable[[], Authenticator]) -> Authenticator:
    """As the test's module makes it."""
    return make()


@pytest.fixture
def work(reader: DirectoryReader, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What each attempt costs, by name: computations of argon2, accounts looked up."""
    counted: Counter[str] = Counter()
    compute, look_up = argon2.PasswordHasher.verify, reader.account

    def verify(*arguments: Any) -> Any:
        counted["argon2"] += 1
        return compute(*arguments)

    def account(*arguments: Any, **options: Any) -> Any:
        counted["accounts"] += 1
        return look_up(*arguments, **options)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify)
    monkeypatch.setattr(reader, "account", account)
    return counted

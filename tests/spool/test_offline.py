"""What operators do with a queue whose server does not run, and what they see of it."""

import os
import sqlite3
from pathlib import Path

import pytest

from mailsuite.interfaces import SpoolError, SpoolInUse
from mailsuite.mail.history import EventKind
from mailsuite.mail.selection import EVERYTHING, Managed, QueueAction, QueueState, Selection
from mailsuite.spool import offline
from mailsuite.spool.reading import SpoolReader
from mailsuite.spool.sqlite import SqliteSpool
from tests.contracts.spool.kit import ENVELOPE, HOLD, RELAY, target
from tests.spool.pump import Pump

SMALL, LARGE = b"Hello\r\n", b"x" * 700_000


@pytest.fixture
def given(pump: Pump, directory: Path) -> list[str]:
    """A queue of three messages that a server has left."""
    spool = SqliteSpool(directory, pump)
    pump.run(spool.start())
    ids = []
    for content, destination in ((SMALL, RELAY), (LARGE, RELAY), (SMALL, HOLD)):
        draft = spool.draft()
        draft.write(content)
        pump.run(draft.commit(ENVELOPE, [target(destination)]))
        ids.append(draft.queue_id)
        pump.advance(1)
    pump.run(spool.stop())
    return ids


def manage(directory: Path, action: QueueAction, pump: Pump, selection: Selection = EVERYTHING) -> Managed:
    return offline.manage(directory, action, selection, by="root", now=pump.seconds())


def test_actions_are_done_and_told_to_the_next_server(pump: Pump, directory: Path, given: list[str]) -> None:
    assert manage(directory, QueueAction.HOLD, pump, Selection(destination=RELAY)) == Managed(2, 2)
    assert manage(directory, QueueAction.DELETE, pump, Selection(ids=(given[1],))) == Managed(1, 1)
    assert list((directory / "contents").iterdir()) == []
    spool = SqliteSpool(directory, pump)
    pump.run(spool.start())
    assert not pump.run(spool.claim(RELAY, 10))
    states = [each.state for one in pump.run(spool.select(EVERYTHING, 10)) for each in one.recipients]
    assert states == [QueueState.ON_HOLD, QueueState.FOR_CUSTOMER]
    pump.run(spool.stop())
    assert manage(directory, QueueAction.RELEASE, pump) == Managed(1, 1)
    pump.run(spool.start())
    (delivery,) = pump.run(spool.claim(RELAY, 10))
    assert not delivery.replayed
    events = pump.run(spool.history(queue_id=given[0]))
    assert [(event.kind, event.subject) for event in events] == [
        (EventKind.MANAGED, "release"),
        (EventKind.MANAGED, "hold"),
        (EventKind.RECEIVED, "joe@example.net"),
    ]
    pump.run(spool.stop())


def test_queue_of_a_server_that_runs_is_not_touched(pump: Pump, directory: Path, spool: SqliteSpool) -> None:
    with pytest.raises(SpoolInUse, match=str(os.getpid())):
        manage(directory, QueueAction.DELETE, pump)


def test_leases_of_a_server_that_was_killed_are_void(pump: Pump, directory: Path, given: list[str]) -> None:
    db = sqlite3.connect(directory / "queue.db", isolation_level=None)
    db.execute("UPDATE recipients SET lease_owner = 1")
    db.close()
    reader = SpoolReader(directory, pump.seconds)
    assert {each.state for one in reader.select(EVERYTHING, 10) for each in one.recipients} == {QueueState.ACTIVE}
    assert manage(directory, QueueAction.RETRY, pump) == Managed(2, 2)
    assert [load.active for load in reader.loads(10)] == [0, 0]


def test_there_must_be_a_queue(pump: Pump, tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=f"There is no spool in {tmp_path}"):
        manage(tmp_path, QueueAction.DELETE, pump)
    with pytest.raises(SpoolError, match="There is no spool"):
        manage(tmp_path / "nowhere", QueueAction.DELETE, pump)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("running", [True, False])
def test_reader_shows_the_queue(pump: Pump, directory: Path, given: list[str], running: bool) -> None:
    spool = SqliteSpool(directory, pump)
    if running:
        pump.run(spool.start())
    reader = SpoolReader(directory, pump.seconds)
    assert [one.message.queue_id for one in reader.select(EVERYTHING, 2)] == given[:2]
    assert [one.message.queue_id for one in reader.select(Selection(larger_than=10), 10, after=given[0])] == [given[1]]
    assert [(load.destination, load.messages, load.octets) for load in reader.loads(10)] == [
        (RELAY, 2, 700_007),
        (HOLD, 1, 7),
    ]
    assert list(reader.find("fred@*")) == given[::-1]
    assert [event.kind for event in reader.history(queue_id=given[2])] == [EventKind.RECEIVED]
    assert [b"".join(reader.content(queue_id)) for queue_id in given] == [SMALL, LARGE, SMALL]
    assert max(map(len, reader.content(given[1]))) < len(LARGE)
    if running:
        assert pump.run(spool.select(EVERYTHING, 10)) == reader.select(EVERYTHING, 10)
        pump.run(spool.stop())


def test_content_that_is_not_there_is_said_in_a_sentence(pump: Pump, directory: Path, given: list[str]) -> None:
    reader = SpoolReader(directory)
    with pytest.raises(SpoolError, match="no message NOTHING"):
        reader.content("NOTHING")
    (directory / "contents" / given[1]).rename(directory / "lost")
    with pytest.raises(SpoolError, match="cannot be read"):
        reader.content(given[1])
    (directory / "lost").rename(directory / "contents" / given[1])

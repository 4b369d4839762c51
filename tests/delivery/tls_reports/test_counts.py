"""What is counted, in memory and on the disk."""

import sqlite3

import pytest

from mailsuite.delivery.tls_reports.book import Book, Due
from mailsuite.delivery.tls_reports.tally import DAY, Event, Policy, Tally
from mailsuite.mail.tls_policy import PolicySource, TLSFailureKind, TLSPolicy, TLSResult
from tests.delivery.tls_policies.fakes import in_no_thread, now
from tests.memory import peak_of

STS = TLSPolicy(
    "verified", PolicySource.MTA_STS, text=("version: STSv1", "mode: enforce"), mx_patterns=("*.x.example",)
)
DANE = TLSPolicy("dane", PolicySource.DANE, text=("3 1 1 ab",))
FAILURE = TLSResult(
    "x.example", STS, "mx.x.example", "192.0.2.1", "192.0.2.9", TLSFailureKind.EXPIRED, "it is\r\n too late"
)
ENDED = 20_000  # a day
TODAY = ENDED + 1


def counted(*results, when=ENDED * DAY + 5.0):
    tally = Tally()
    for result in results:
        tally.note(result, when)
    return tally.take()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tls-reports.db"


@pytest.fixture
def book(file):
    return Book(file, in_no_thread)


# --------------------------------------------------------------------------------------------- in memory


def test_results_are_counted_by_policy_and_failure():
    success = TLSResult("x.example", STS, "mx.x.example", "192.0.2.1", "192.0.2.9")
    other_host = TLSResult("x.example", STS, "mx2.x.example", "192.0.2.2")
    policy = Policy("sts", STS.text, ("*.x.example",))
    failure = Event(
        ENDED, "x.example", policy, "certificate-expired", "192.0.2.9", "mx.x.example", "192.0.2.1", "it is too late"
    )
    assert counted(success, FAILURE, other_host, FAILURE) == [(Event(ENDED, "x.example", policy), 2), (failure, 2)]


def test_policy_of_dane_is_that_of_a_host_and_no_policy_is_nobodys():
    [(dane, _), (none, _)] = counted(
        TLSResult("x.example", DANE, "mx.x.example"), TLSResult("x.example", TLSPolicy(text=("x",)), "mx.x.example")
    )
    assert dane.policy == Policy("tlsa", ("3 1 1 ab",), ("mx.x.example",))
    assert none.policy == Policy("no-policy-found")


def test_days_are_those_of_utc():
    tally = Tally()
    for when in (TODAY * DAY - 0.1, TODAY * DAY):
        tally.note(FAILURE, when)
    assert [event.day for event, _ in tally.take()] == [ENDED, TODAY]


def test_memory_is_bounded_and_what_is_known_counts_on():
    tally = Tally(3)
    for number in range(10):
        tally.note(TLSResult(f"{number}.example", DANE), 0.0)
    tally.note(TLSResult("0.example", DANE), 0.0)
    assert [count for _, count in tally.take()] == [2, 1, 1]
    assert not tally


def test_memory_does_not_grow_with_hostile_results():
    policy = TLSPolicy(source=PolicySource.MTA_STS, text=("mx: x.example",) * 10_000, mx_patterns=("x" * 200,) * 10_000)
    tally = Tally(200)

    def note():
        for number in range(1000):
            kind = TLSFailureKind.VALIDATION
            tally.note(TLSResult("x.example", policy, failure=kind, reason=f"{number}" * 10_000), 0.0)

    assert peak_of(note) < 20_000_000
    [event, *_] = [event for event, _ in tally.take()]
    assert len(event.reason) == 200
    assert sum(map(len, event.policy.text)) <= 16 * 1024


# ------------------------------------------------------------------------------------------- on the disk


def test_counts_add_up_and_survive_a_restart(book, file):
    assert now(book.add(counted(FAILURE, FAILURE)))
    assert now(Book(file, in_no_thread).add(counted(FAILURE, TLSResult("x.example", STS))))
    events = now(book.events(ENDED, "x.example"))
    assert sorted((event.kind, count) for event, count in events) == [("", 1), ("certificate-expired", 3)]
    assert {event for event, _ in events} == {event for event, _ in counted(FAILURE, TLSResult("x.example", STS))}
    assert file.stat().st_mode & 0o077 == 0


def test_days_that_are_over_are_due_once(book):
    now(book.add([*counted(FAILURE), *counted(FAILURE, when=TODAY * DAY)]))
    [due] = now(book.due(TODAY, 0.0, 10))
    assert due == Due(ENDED, "x.example", 0)
    now(book.close(due))
    assert now(book.events(ENDED, "x.example")) == []
    now(book.add(counted(FAILURE)))  # written down late
    assert now(book.due(TODAY, 1e12, 10)) == []
    assert now(book.next_due(TODAY)) is None
    assert now(book.due(TODAY + 1, 0.0, 10)) == [Due(TODAY, "x.example", 0)]


def test_report_that_was_tried_in_vain_comes_back(book):
    now(book.add(counted(FAILURE)))
    now(book.defer(Due(ENDED, "x.example", 0), 1000.0))
    assert now(book.due(TODAY, 999.0, 10)) == []
    assert now(book.next_due(TODAY)) == 1000.0
    assert now(book.due(TODAY, 1000.0, 10)) == [Due(ENDED, "x.example", 1)]


def test_what_is_too_old_is_forgotten(book, file):
    now(book.add(counted(FAILURE)))
    now(book.defer(Due(ENDED, "x.example", 0), 1000.0))
    now(book.prune(ENDED + 3))
    assert now(book.due(ENDED + 3, 2000.0, 10)) == [Due(ENDED, "x.example", 1)]
    now(book.prune(ENDED + 4))
    assert now(book.due(ENDED + 4, 2000.0, 10)) == []
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM policies").fetchone() == (0,)
    connection.close()


def test_kinds_of_a_domain_are_bounded(book):
    many = [
        TLSResult("x.example", STS, f"mx{number}.x.example", failure=TLSFailureKind.EXPIRED) for number in range(300)
    ]
    now(book.add(counted(*many, TLSResult("y.example", STS))))
    events = dict(now(book.events(ENDED, "x.example")))
    assert len(events) == 101
    assert sum(events.values()) == 300
    assert [count for event, count in events.items() if not event.host] == [200]
    policies = [
        TLSResult("x.example", TLSPolicy(source=PolicySource.DANE, text=(f"{number}",)), failure=TLSFailureKind.EXPIRED)
        for number in range(300)
    ]
    now(book.add(counted(*policies)))
    assert len(now(book.events(ENDED, "x.example"))) == 200
    assert len(now(book.events(ENDED, "y.example"))) == 1


def test_file_does_not_grow_beyond_its_size(file):
    book = Book(file, in_no_thread, largest=200_000)
    full = [
        counted(TLSResult(f"{number}.example", TLSPolicy(source=PolicySource.DANE, text=(f"{number}" * 3000,))))
        for number in range(100)
    ]
    written = [now(book.add(counts)) for counts in full]
    assert written[0]
    assert not written[-1]
    assert file.stat().st_size <= 200_000
    assert now(book.events(ENDED, "0.example"))


@pytest.mark.parametrize("octets", [b"", b"garbage" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_broken_file_is_made_anew(file, book, octets):
    file.write_bytes(octets)
    assert now(book.add(counted(FAILURE)))
    assert now(book.due(TODAY, 0.0, 10))


def test_file_of_another_version_is_made_anew(file, book):
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    assert now(book.add(counted(FAILURE)))


def test_place_that_cannot_be_written_is_told_and_no_more(tmp_path):
    book = Book(tmp_path / "none" / "tls-reports.db", in_no_thread)
    assert not now(book.add(counted(FAILURE)))
    assert now(book.due(TODAY, 0.0, 10)) == []
    assert now(book.events(ENDED, "x.example")) == []
    assert now(book.next_due(TODAY)) is None

"""Parts of messages whose lines broke: kept, taken up again, forgotten."""

from typing import Any

import pytest
from twisted.internet.defer import gatherResults

from mailsuite.interfaces import SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.partial import Partial
from mailsuite.mail.route import Target
from tests.contracts.spool.kit import ENVELOPE, HOLD, KEPT, LARGE, MAILDIR, RELAY, Kit, ids, names, target

OCTETS = bytes(range(256)) * 400
SIZES = [10, 50 * LARGE]


def begin(kit: Kit, octets: bytes) -> Any:
    draft = kit.spool.draft()
    write(kit, draft, octets)
    return draft


def write(kit: Kit, draft: Any, octets: bytes) -> None:
    async def send() -> None:
        for at in range(0, len(octets), 700):
            waiting = draft.write(octets[at : at + 700])
            if waiting is not None:
                await waiting

    kit.run(send())


def keep(kit: Kit, name: str, octets: bytes, *, received: int = 0) -> str:
    draft = begin(kit, octets)
    kit.run(kit.spool.keep(draft, name, ENVELOPE, [target(RELAY)], received))
    return str(draft.queue_id)


def resume(kit: Kit, name: str) -> Partial | None:
    part = kit.run(kit.spool.resume(name))
    assert part is None or isinstance(part, Partial)
    return part


def size_of(kit: Kit, name: str) -> int | None:
    """How much is kept under a name; it is given up."""
    part = resume(kit, name)
    if part is None:
        return None
    part.draft.abort()
    return int(part.draft.size)


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("size", [0, LARGE, LARGE + 1, 50 * LARGE])
@pytest.mark.parametrize("more", [0, 40 * LARGE])
def test_part_is_taken_up_where_it_ended(kit: Kit, size: int, more: int, *, reopened: bool) -> None:
    draft = begin(kit, OCTETS[:size])
    kit.run(kit.spool.keep(draft, "a", ENVELOPE, [target(RELAY)], 7))
    assert kit.count() == 0
    if reopened:
        kit.reopen()
    part = resume(kit, "a")
    assert part is not None
    assert (part.draft.queue_id, part.draft.size, part.received) == (draft.queue_id, size, 7)
    write(kit, part.draft, OCTETS[size : size + more])
    assert part.draft.size == size + more
    assert kit.count() == 0
    kit.run(part.draft.commit(part.envelope, part.targets))
    (delivery,) = kit.claim(RELAY)
    assert (delivery.message.queue_id, delivery.message.size) == (draft.queue_id, size + more)
    assert kit.content(delivery) == OCTETS[: size + more]


def test_envelope_and_targets_come_back(kit: Kit) -> None:
    original = Address("team", "example.com")
    envelope = Envelope(Address("jürgen q", "bücher.example"), Body.BINARY, smtputf8=True, submitter="joe")
    targets = [target(RELAY, "fred", original), target(HOLD, "Ünal"), Target(Address("Postmaster", ""), MAILDIR)]
    for wanted in (envelope, Envelope(None)):
        draft = begin(kit, b"Hello\r\n")
        kit.run(kit.spool.keep(draft, "a", wanted, targets, 3))
        kit.reopen()
        part = resume(kit, "a")
        assert part is not None
        assert part.envelope == wanted
        assert list(part.targets) == targets
        kit.run(part.draft.commit(part.envelope, part.targets))
    assert [names(one) for one in kit.claim_held(HOLD)] == [["Ünal"]] * 2


@pytest.mark.parametrize("size", SIZES)
def test_keeping_ends_the_draft_as_an_abort_does(kit: Kit, size: int) -> None:
    draft = begin(kit, OCTETS[:size])
    kit.run(kit.spool.keep(draft, "a", ENVELOPE, [target(RELAY)], size))
    draft.abort()
    with pytest.raises(SpoolError):
        draft.write(b"more")
    with pytest.raises(SpoolError):
        kit.run(draft.commit(ENVELOPE, [target(RELAY)]))
    with pytest.raises(SpoolError):
        kit.run(kit.spool.keep(draft, "b", ENVELOPE, [target(RELAY)], size))
    kit.reopen()
    assert kit.count() == 0
    assert size_of(kit, "b") is None
    assert size_of(kit, "a") == size


@pytest.mark.parametrize("size", SIZES)
def test_draft_that_was_committed_or_aborted_is_not_kept(kit: Kit, size: int) -> None:
    committed, aborted = begin(kit, OCTETS[:size]), begin(kit, OCTETS[:size])
    committing = committed.commit(ENVELOPE, [target(RELAY)])
    aborted.abort()
    keep(kit, "a", b"before")
    for draft in (committed, aborted):
        with pytest.raises(SpoolError):
            kit.run(kit.spool.keep(draft, "a", ENVELOPE, [target(RELAY)], size))
    kit.run(committing)
    kit.reopen()
    assert size_of(kit, "a") == 6
    (delivery,) = kit.claim(RELAY)
    assert kit.content(delivery) == OCTETS[:size]


@pytest.mark.parametrize("size", SIZES)
def test_part_that_was_taken_is_kept_no_longer(kit: Kit, size: int) -> None:
    assert resume(kit, "a") is None
    keep(kit, "a", OCTETS[:size])
    assert size_of(kit, "a") == size
    assert resume(kit, "a") is None
    keep(kit, "a", OCTETS[:size])
    taken = resume(kit, "a")
    assert taken is not None
    assert resume(kit, "a") is None
    kit.reopen()  # a crash, with the draft under way
    assert resume(kit, "a") is None
    assert kit.count() == 0


@pytest.mark.parametrize("step", [100, 600, 30 * LARGE])
def test_part_is_kept_again_and_again(kit: Kit, step: int) -> None:
    queue_id = keep(kit, "a", OCTETS[:step])
    for number in (1, 2):
        if number == 2:
            kit.reopen()
        part = resume(kit, "a")
        assert part is not None
        write(kit, part.draft, OCTETS[number * step : (number + 1) * step])
        kit.run(kit.spool.keep(part.draft, "a", part.envelope, part.targets, part.draft.size))
    part = resume(kit, "a")
    assert part is not None
    assert part.received == part.draft.size == 3 * step
    kit.run(part.draft.commit(part.envelope, part.targets))
    (delivery,) = kit.claim(RELAY)
    assert ids([delivery]) == [queue_id]
    assert kit.content(delivery) == OCTETS[: 3 * step]


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("whole", [10, LARGE + 1, 50 * LARGE])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9999, 1.0, 2.0])
def test_part_is_cut_back(kit: Kit, whole: int, share: float, *, reopened: bool) -> None:
    size = min(whole, int(whole * share))
    draft = begin(kit, OCTETS[:whole])
    kit.run(kit.spool.keep(draft, "a", ENVELOPE, [target(RELAY)], 3, size=int(whole * share)))
    if reopened:
        kit.reopen()
    for _ in range(2):
        part = resume(kit, "a")
        assert part is not None
        assert (part.draft.size, part.received) == (size, 3)
        kit.run(kit.spool.keep(part.draft, "a", part.envelope, part.targets, part.received))
    part = resume(kit, "a")
    assert part is not None
    write(kit, part.draft, OCTETS[size:whole])
    kit.run(part.draft.commit(part.envelope, part.targets))
    (delivery,) = kit.claim(RELAY)
    assert delivery.content.size == whole
    assert kit.content(delivery) == OCTETS[:whole]


def test_parts_have_nothing_to_do_with_one_another(kit: Kit) -> None:
    keep(kit, "a", OCTETS[:100])
    keep(kit, "b", OCTETS[:200])
    keep(kit, "c", OCTETS[:300])
    kit.run(kit.spool.forget("b"))
    assert size_of(kit, "b") is None
    assert size_of(kit, "c") == 300
    assert size_of(kit, "a") == 100


@pytest.mark.parametrize("size", SIZES)
def test_what_had_the_name_before_is_forgotten(kit: Kit, size: int) -> None:
    keep(kit, "a", OCTETS[:size])
    later = keep(kit, "a", b"later", received=4)
    kit.reopen()
    part = resume(kit, "a")
    assert part is not None
    assert (part.draft.queue_id, part.draft.size, part.received) == (later, 5, 4)
    part.draft.abort()
    assert resume(kit, "a") is None


@pytest.mark.parametrize("size", SIZES)
def test_forgotten_is_forgotten(kit: Kit, size: int) -> None:
    kit.run(kit.spool.forget("a"))
    keep(kit, "a", OCTETS[:size])
    kit.run(kit.spool.forget("a"))
    kit.run(kit.spool.forget("a"))
    kit.reopen()
    assert resume(kit, "a") is None


@pytest.mark.parametrize("size", [10, 50 * LARGE])
def test_what_is_asked_about_one_name_is_done_in_order(kit: Kit, size: int) -> None:
    first, second = begin(kit, OCTETS[:size]), begin(kit, OCTETS[: size + 1])
    asked = [
        kit.spool.keep(first, "a", ENVELOPE, [target(RELAY)], 0),
        kit.spool.resume("a"),
        kit.spool.resume("a"),
        kit.spool.keep(second, "a", ENVELOPE, [target(RELAY)], 0),
        kit.spool.forget("a"),
        kit.spool.resume("a"),
    ]
    answers = kit.run(gatherResults(asked))
    assert isinstance(answers[1], Partial)
    assert answers[1].draft.size == size
    assert [answers[number] for number in (0, 2, 3, 4, 5)] == [None] * 5
    answers[1].draft.abort()


# ---------------------------------------------------------------------------------------------- bounds


def test_parts_are_kept_for_a_set_time(kit: Kit) -> None:
    keep(kit, "a", OCTETS[:10])
    keep(kit, "b", OCTETS[: 2 * LARGE])
    kit.clock.advance(KEPT["partials_time"] - 400)
    keep(kit, "c", OCTETS[:30])
    assert size_of(kit, "a") == 10
    keep(kit, "a", OCTETS[:40])
    kit.clock.advance(401)
    assert resume(kit, "b") is None
    assert size_of(kit, "a") == 40
    assert size_of(kit, "c") == 30
    keep(kit, "d", OCTETS[: 2 * LARGE])
    kit.run(kit.spool.stop())
    kit.clock.advance(KEPT["partials_time"] + 1)
    kit.reopen()
    assert resume(kit, "d") is None


@pytest.mark.parametrize("size", [10, 2 * LARGE])
def test_oldest_part_makes_room_for_one_beyond_the_number(kit: Kit, size: int) -> None:
    for number in range(5):
        keep(kit, str(number), OCTETS[:size])
    keep(kit, "5", OCTETS[:size])
    assert resume(kit, "0") is None
    keep(kit, "3", OCTETS[: size + 3])  # takes the place of what had its name
    assert [size_of(kit, name) for name in "1245"] == [size] * 4
    assert size_of(kit, "3") == size + 3


def test_oldest_parts_make_room_for_one_beyond_the_octets(kit: Kit) -> None:
    for name in "abcd":
        keep(kit, name, OCTETS[: 49 * LARGE])
    keep(kit, "e", OCTETS[: 80 * LARGE])
    kit.reopen()
    assert [size_of(kit, name) for name in "abcde"] == [None, None, 49 * LARGE, 49 * LARGE, 80 * LARGE]


def test_part_beyond_all_bounds_is_dropped_with_what_had_its_name(kit: Kit) -> None:
    keep(kit, "a", OCTETS[: 90 * LARGE])
    keep(kit, "d", OCTETS[:100])
    keep(kit, "d", OCTETS * 3)
    assert resume(kit, "d") is None
    assert size_of(kit, "a") == 90 * LARGE


def test_part_that_made_room_and_came_again_is_there(kit: Kit) -> None:
    drafts = [begin(kit, b"%d" % number) for number in range(9)]
    names = ["0", "1", "2", "3", "4", "5", "0", "6", "1"]
    kept = zip(drafts, names, strict=True)
    kit.run(gatherResults([kit.spool.keep(draft, name, ENVELOPE, [target(RELAY)], 0) for draft, name in kept]))
    assert [size_of(kit, name) for name in "0123456"] == [1, 1, None, None, 1, 1, 1]


def test_many_parts_of_one_host_leave_those_of_others(kit: Kit) -> None:
    keep(kit, "1@a host 192.0.2.1 a.example", OCTETS[:10])
    keep(kit, "1@b account fred@example.org", OCTETS[:20])
    for number in range(30):
        keep(kit, f"{number}@c host 192.0.2.9 {number}.example", OCTETS[: 17 + 100 * number])
    keep(kit, "2@a host 192.0.2.1 a.example", OCTETS[:30])
    assert size_of(kit, "1@a host 192.0.2.1 a.example") == 10
    assert size_of(kit, "2@a host 192.0.2.1 a.example") == 30
    assert size_of(kit, "1@b account fred@example.org") == 20
    assert resume(kit, "27@c host 192.0.2.9 27.example") is None
    assert size_of(kit, "29@c host 192.0.2.9 29.example") == 2917


def test_old_parts_make_room(kit: Kit) -> None:
    for number in range(5):
        keep(kit, str(number), OCTETS[: 20 * LARGE])
    kit.clock.advance(KEPT["partials_time"] + 1)
    keep(kit, "new", OCTETS[: 90 * LARGE])
    assert size_of(kit, "new") == 90 * LARGE

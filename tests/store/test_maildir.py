"""Delivery into maildirs, on a real file system."""

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from mailbox import Maildir
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailsuite.mail.address import Address
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.queue import Delivery, Message, Recipient, Result
from mailsuite.mail.route import MAILDIR, Destination
from mailsuite.store import maildir
from mailsuite.store.maildir import DELIVERED, MaildirStore
from mailsuite.store.sync import Sync, has_syncfs

NOW = 1_700_000_000.0
ALICE, BOB = Address("alice", "example.org"), Address("bob", "example.org")
SENDER = Address("carol", "example.net")
CONTENT = b"Subject: hello\r\n\r\nfirst\r\nsecond\r\n"


class FileContent:
    """A content that does not lie in memory."""

    def __init__(self, octets):
        self.octets = octets
        self.size = len(octets)

    def in_memory(self):
        return None

    def open(self):
        return BytesIO(self.octets)


class BrokenContent(FileContent):
    """A content whose file fails in the middle."""

    def __init__(self, error):
        super().__init__(b"Subject: never\r\n")
        self.error = error

    def open(self):
        raise self.error


def delivery(number, *addresses, content=None, sender=SENDER, replayed=False, attempts=0):
    recipients = tuple(Recipient(number * 100 + at, address, attempts=attempts) for at, address in enumerate(addresses))
    content = MemoryContent(CONTENT) if content is None else content
    message = Message(f"Q{number}", Envelope(sender), content.size, NOW)
    return Delivery(message, Destination(MAILDIR), recipients, content, replayed)


@pytest.fixture(params=[Sync.FILES, Sync.FILESYSTEM])
def store(request, tmp_path):
    if request.param is Sync.FILESYSTEM and not has_syncfs():
        pytest.skip("this system has no syncfs")
    store = MaildirStore(tmp_path / "mail", hostname="mx.example.org", now=lambda: NOW, sync=request.param)
    yield store
    store.close()


def files(tmp_path, address=ALICE, folder="new"):
    path = tmp_path / "mail" / address.domain / address.local_part / folder
    return sorted(path.iterdir()) if path.exists() else []


def test_the_owner_of_a_list_stands_in_the_place_of_the_sender(store, tmp_path) -> None:
    one = delivery(1, ALICE)
    owner = Address("owner-list", "example.org")
    store.deliver([replace(one, recipients=(replace(one.recipients[0], reverse_path=owner),))])
    assert files(tmp_path)[0].read_bytes().startswith(b"Return-Path: <owner-list@example.org>\n")


def test_a_message_lies_in_new_with_its_envelope_above_it(store, tmp_path) -> None:
    assert store.deliver([delivery(1, ALICE)]) == [(DELIVERED,)]
    [file] = files(tmp_path)
    assert file.read_bytes() == (
        b"Return-Path: <carol@example.net>\nDelivered-To: alice@example.org\n" + CONTENT.replace(b"\r\n", b"\n")
    )
    assert files(tmp_path, folder="tmp") == []


def test_the_name_tells_queue_id_recipient_host_and_sizes(store, tmp_path) -> None:
    store.deliver([delivery(1, ALICE)])
    [file] = files(tmp_path)
    octets = file.read_bytes()
    size, wire = len(octets), len(octets.replace(b"\n", b"\r\n"))
    assert file.name == f"1700000000.QQ1R100.mx.example.org,S={size},W={wire}"


def test_mailboxes_are_created_for_us_alone(store, tmp_path) -> None:
    store.deliver([delivery(1, ALICE)])
    for path in [tmp_path / "mail", *(tmp_path / "mail").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert sorted(path.name for path in (tmp_path / "mail/example.org/alice").iterdir()) == ["cur", "new", "tmp"]


def test_the_standard_library_can_read_it(store, tmp_path) -> None:
    store.deliver([delivery(1, ALICE), delivery(2, ALICE)])
    messages = list(Maildir(tmp_path / "mail/example.org/alice", create=False))
    assert [message["Return-Path"] for message in messages] == ["<carol@example.net>"] * 2


def test_each_recipient_gets_a_file_that_names_it(store, tmp_path) -> None:
    assert store.deliver([delivery(1, ALICE, BOB)]) == [(DELIVERED, DELIVERED)]
    assert b"\nDelivered-To: alice@example.org\n" in files(tmp_path)[0].read_bytes()
    assert b"\nDelivered-To: bob@example.org\n" in files(tmp_path, BOB)[0].read_bytes()


def test_the_null_sender_has_an_empty_return_path(store, tmp_path) -> None:
    store.deliver([delivery(1, ALICE, sender=None)])
    assert files(tmp_path)[0].read_bytes().startswith(b"Return-Path: <>\n")


def test_a_batch_larger_than_a_slice_is_delivered_whole(store, tmp_path) -> None:
    batch = [delivery(number, ALICE if number % 2 else BOB) for number in range(250)]
    assert store.deliver(batch) == [(DELIVERED,)] * 250
    assert len(files(tmp_path)) == len(files(tmp_path, BOB)) == 125


def test_no_descriptor_stays_open(store) -> None:
    store.deliver([delivery(1, ALICE)])
    before = len(list(Path("/proc/self/fd").iterdir()))
    store.deliver([delivery(number, ALICE, BOB, Address(f"box{number}", "example.org")) for number in range(60)])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    octets=st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n"]), max_size=40).map(b"".join), chunk=st.integers(1, 9)
)
def test_streamed_content_is_converted_right_across_chunks(octets, chunk, tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setattr(maildir, "_CHUNK", chunk)
    root = tmp_path_factory.mktemp("streamed")
    store = MaildirStore(root / "mail", hostname="mx", now=lambda: NOW)
    store.deliver([delivery(1, ALICE, content=FileContent(octets)), delivery(2, ALICE, content=MemoryContent(octets))])
    store.close()
    streamed, whole = files(root)
    _, tail = streamed.read_bytes().split(b"alice@example.org\n", 1)
    assert tail == octets.replace(b"\r\n", b"\n")
    assert streamed.read_bytes() == whole.read_bytes()
    assert streamed.name.partition(",")[2] == whole.name.partition(",")[2]


def test_a_replay_finds_what_was_delivered(store, tmp_path) -> None:
    store.deliver([delivery(1, ALICE)])
    assert store.deliver([delivery(1, ALICE, replayed=True)]) == [(DELIVERED,)]
    assert len(files(tmp_path)) == 1


def test_a_replay_finds_what_a_reader_has_moved_and_marked(store, tmp_path) -> None:
    store.deliver([delivery(1, ALICE)])
    [file] = files(tmp_path)
    file.rename(file.parent.parent / "cur" / (file.name + ":2,FS"))
    assert store.deliver([delivery(1, ALICE, replayed=True)]) == [(DELIVERED,)]
    assert files(tmp_path) == []


def test_a_second_attempt_looks_as_a_replay_does(store, tmp_path) -> None:
    store.deliver([delivery(1, ALICE)])
    assert store.deliver([delivery(1, ALICE, attempts=1)]) == [(DELIVERED,)]
    assert len(files(tmp_path)) == 1


def test_a_replay_is_delivered_to_those_it_has_not_reached(store, tmp_path) -> None:
    store.deliver([delivery(1, ALICE)])
    assert store.deliver([delivery(1, ALICE, BOB, replayed=True)]) == [(DELIVERED, DELIVERED)]
    assert len(files(tmp_path)) == len(files(tmp_path, BOB)) == 1


def test_a_replay_does_not_take_another_message_for_its_own(store, tmp_path) -> None:
    store.deliver([delivery(1, ALICE)])
    store.deliver([delivery(11, ALICE, replayed=True)])
    assert len(files(tmp_path)) == 2


class Meeting(FileContent):
    """Whoever opens it does something first."""

    def __init__(self, first):
        super().__init__(CONTENT)
        self.first = first

    def open(self):
        self.first()
        return super().open()


def test_a_process_that_outlived_its_server_publishes_nothing_of_ours(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "getpid", threading.get_ident)  # threads play the processes
    outlived_writes, we_write = threading.Event(), threading.Event()
    seen = []

    def meet() -> None:
        outlived_writes.set()
        we_write.wait(10)

    def let_go() -> None:
        we_write.set()
        outlived.result(10)
        seen.append(files(tmp_path))  # while ours is open, and not whole

    with ThreadPoolExecutor(1) as process:
        outlived = process.submit(store.deliver, [delivery(1, ALICE, content=Meeting(meet))])
        assert outlived_writes.wait(10)
        assert store.deliver([delivery(1, ALICE, content=Meeting(let_go), replayed=True)]) == [(DELIVERED,)]
    assert seen == [[]]
    assert [file.read_bytes()[-7:] for file in files(tmp_path)] == [b"second\n"]


def test_what_a_crash_left_in_tmp_is_written_anew(store, tmp_path) -> None:
    store.deliver([delivery(2, ALICE)])
    (tmp_path / "mail/example.org/alice/tmp/1700000000.QQ1R100.mx.example.org").write_bytes(b"half a mess")
    assert store.deliver([delivery(1, ALICE, replayed=True)]) == [(DELIVERED,)]
    assert files(tmp_path, folder="tmp") == []
    assert {file.read_bytes()[-7:] for file in files(tmp_path)} == {b"second\n"}


def test_abandoned_files_are_swept_and_young_ones_stay(tmp_path) -> None:
    times = iter([NOW, NOW + 35 * 3600, NOW + 80 * 3600, NOW + 80 * 3600])
    store = MaildirStore(tmp_path / "mail", hostname="mx", now=lambda: next(times))
    store.deliver([delivery(1, ALICE)])
    tmp = tmp_path / "mail/example.org/alice/tmp"
    for name, age in [("old", NOW), ("young", NOW + 60 * 3600)]:
        (tmp / name).write_bytes(b"x")
        os.utime(tmp / name, (age, age))
    store.deliver([delivery(2, ALICE)])
    assert len(files(tmp_path, folder="tmp")) == 2
    store.deliver([delivery(3, ALICE)])
    assert [file.name for file in files(tmp_path, folder="tmp")] == ["young"]
    store.close()


@pytest.mark.parametrize(
    ("number", "status"),
    [(errno.ENOSPC, "4.3.1"), (errno.EDQUOT, "4.2.2"), (errno.EACCES, "4.3.0"), (errno.EIO, "4.3.0")],
)
def test_an_error_defers_one_delivery_and_not_its_neighbours(store, tmp_path, number, status) -> None:
    broken = delivery(2, ALICE, content=BrokenContent(OSError(number, "ignored")))
    first, (outcome,), last = store.deliver([delivery(1, ALICE), broken, delivery(3, BOB)])
    assert first == last == (DELIVERED,)
    assert outcome.result is Result.DEFERRED
    assert str(outcome.status) == status
    assert outcome.text == f"{os.strerror(number)}: example.org/alice"
    assert len(files(tmp_path)) == 1
    assert files(tmp_path, folder="tmp") == []


def test_a_defect_defers_one_delivery_and_not_its_neighbours(store, tmp_path) -> None:
    broken = delivery(2, ALICE, content=BrokenContent(KeyError("defect")))
    (outcome,), last = store.deliver([broken, delivery(3, ALICE)])
    assert (outcome.result, str(outcome.status), last) == (Result.DEFERRED, "4.3.0", (DELIVERED,))
    assert "defect" not in outcome.text


def test_a_mailbox_that_is_a_file_defers_its_mail_alone(store, tmp_path) -> None:
    (tmp_path / "mail/example.org").mkdir(parents=True)
    (tmp_path / "mail/example.org/alice").write_bytes(b"an mbox of old")
    (outcome,), last = store.deliver([delivery(1, ALICE), delivery(2, BOB)])
    assert outcome.result is Result.DEFERRED
    assert outcome.text == "Not a directory: example.org/alice"
    assert last == (DELIVERED,)


def test_an_entry_in_the_way_of_publishing_defers_one_mailbox(store, tmp_path) -> None:
    store.deliver([delivery(1, ALICE), delivery(2, BOB)])
    [file] = files(tmp_path)
    file.unlink()
    file.parent.rmdir()
    file.parent.write_bytes(b"")
    (outcome,), last = store.deliver([delivery(3, ALICE), delivery(4, BOB)])
    assert outcome.result is Result.DEFERRED
    assert last == (DELIVERED,)
    assert files(tmp_path, folder="tmp") == []


def test_batches_in_several_threads_make_one_mailbox_together(store, tmp_path) -> None:
    batches = [[delivery(thread * 50 + at, ALICE, BOB) for at in range(50)] for thread in range(6)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(store.deliver, batches))
    assert results == [[(DELIVERED, DELIVERED)] * 50] * 6
    assert len(files(tmp_path)) == len(files(tmp_path, BOB)) == 300


def test_an_address_cannot_write_lines_of_its_own(store, tmp_path) -> None:
    evil = Address("a\nX-Evil: y", "example.org")
    store.deliver([delivery(1, evil, sender=Address("b\r\nX-Evil: z", "example.net"))])
    [file] = (tmp_path / "mail/example.org").glob("*/new/*")
    assert file.read_bytes().partition(b"\n\n")[0].count(b"\n") == 2


def test_a_template_is_checked_when_the_store_is_made(tmp_path) -> None:
    with pytest.raises(ValueError, match="local"):
        MaildirStore(tmp_path, hostname="mx", now=lambda: NOW, template="{domain}")

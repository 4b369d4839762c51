"""Delivery into maildirs, a batch at a time.

For a whole batch: every message is written to a file in its mailbox's tmp/, all files are made durable, then all are
renamed into new/, then the directories are made durable; only after that is anything reported. So a file in new/ is
always whole, and what was reported is there after a power cut. A mailbox that is missing is created.

A file's name follows from queue id and recipient. When an attempt may be the second one (a replay after a crash, or
after an error at the very end), new/ and cur/ are looked through first, and what lies there is not written again. Known
limit: a reader who has removed the message in between gets it once more.

An error concerns the delivery that met it, its neighbours in the batch go on. Each message is written out for each
of its recipients: Delivered-To differs, so there is nothing that hard links could share. Everything here blocks: it
runs in worker threads, several batches at once if need be.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from twisted.logger import Logger

from mailsuite.mail.queue import Delivery, Outcome, Recipient, Result
from mailsuite.mail.status import EnhancedStatus
from mailsuite.mail.trace import delivered_to_line, return_path_line
from mailsuite.store.layout import DEFAULT_TEMPLATE, check_template, host_part, mailbox_path, name_stem
from mailsuite.store.sync import Sync, has_syncfs, sync_directory, sync_filesystem, syncfs_reports_errors

# How many files are written before they are synced and renamed together; bounds open descriptors too.
_SLICE: Final = 100
_MANY: Final = 8  # from so many files on, one sync of the file system is cheaper than theirs
_CHUNK: Final = 256 * 1024
_STALE: Final = 36 * 3600.0  # seconds: what the maildir convention calls abandoned
_MAX_SWEPT: Final = 10_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

DELIVERED: Final = Outcome(Result.DELIVERED, EnhancedStatus(2, 1, 5), "Delivered")
_NO_SPACE = EnhancedStatus(4, 3, 1)
_MAILBOX_FULL = EnhancedStatus(4, 2, 2)
_LOCAL_ERROR = EnhancedStatus(4, 3, 0)


class _Mailbox:
    """One maildir while a slice is being delivered into it."""

    __slots__ = ("_stems", "descriptor", "path")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self._stems: set[str] | None = None

    def holds(self, stem: str) -> bool:
        """Whether a message of that name has been delivered before; read once for each slice."""
        if self._stems is None:
            self._stems = set()
            for name in ("new", "cur"):
                listed = os.open(name, _DIRECTORY, dir_fd=self.descriptor)
                try:
                    # Two dots end a stem; what follows is the host, sizes, and flags in cur/.
                    self._stems |= {".".join(entry.split(".", 2)[:2]) + "." for entry in os.listdir(listed)}
                finally:
                    os.close(listed)
        return stem in self._stems

    def clear(self, stem: str) -> None:
        """Remove what an attempt that a crash ended has left of a message in tmp/."""
        listed = os.open("tmp", _DIRECTORY, dir_fd=self.descriptor)
        try:
            for name in os.listdir(listed):
                if name.startswith(stem):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=listed)
        finally:
            os.close(listed)


class _Job:
    """One message for one recipient."""

    __slots__ = ("delivery", "mailbox", "name", "outcome", "recipient", "sizes")

    def __init__(self, delivery: Delivery, recipient: Recipient) -> None:
        self.delivery = delivery
        self.recipient = recipient
        self.name = ""
        self.sizes = ""
        self.mailbox: _Mailbox | None = None
        self.outcome: Outcome | None = None


class MaildirStore:
    """Maildirs below one directory. `root` is created where it is missing, in mode 0700 as everything below it.

    `now` tells the time for sweeping abandoned files. Raises `ValueError` with one sentence for a template or a
    way to sync that cannot be used here.
    """

    _log = Logger()

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        hostname: str,
        now: Callable[[], float],
        template: str = DEFAULT_TEMPLATE,
        sync: Sync = Sync.AUTO,
        threads: int = 8,
    ) -> None:
        if sync is Sync.FILESYSTEM and not has_syncfs():
            raise ValueError('sync = "filesystem" needs syncfs(2), which this system does not have')
        self._root = os.fspath(root)
        self._template = check_template(template)
        self._host = host_part(hostname)
        self._now = now
        self._sync = Sync.FILES if sync is Sync.AUTO and not syncfs_reports_errors() else sync
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "maildir")
        self._swept: dict[str, float] = {}

    def close(self) -> None:
        """End the threads. What is being delivered is finished first."""
        self._pool.shutdown()

    def deliver(self, deliveries: Sequence[Delivery]) -> list[tuple[Outcome, ...]]:
        """Deliver a batch, and tell the outcomes of each delivery in the order of its recipients. Raises nothing."""
        jobs = [_Job(delivery, recipient) for delivery in deliveries for recipient in delivery.recipients]
        for start in range(0, len(jobs), _SLICE):
            self._deliver_slice(jobs[start : start + _SLICE])
        ordered = iter(jobs)
        return [tuple(next(ordered).outcome or DELIVERED for _ in one.recipients) for one in deliveries]

    def _deliver_slice(self, jobs: list[_Job]) -> None:
        mailboxes: dict[str, _Mailbox] = {}
        together = self._sync is Sync.FILESYSTEM or (self._sync is Sync.AUTO and len(jobs) >= _MANY)
        try:
            self._each(jobs, lambda job: self._place(job, mailboxes))
            self._write(jobs, together=together)
            self._each(jobs, _publish)
            self._sync_directories(jobs, together=together)
        finally:
            for mailbox in mailboxes.values():
                os.close(mailbox.descriptor)

    def _each(self, jobs: Iterable[_Job], step: Callable[[_Job], None]) -> None:
        """Take a step for each job that has no outcome yet; one that fails gets its outcome here."""
        for job in jobs:
            if job.outcome is None:
                try:
                    step(job)
                except Exception as error:  # noqa: BLE001 - one bad delivery never takes its neighbours along
                    self._fail(job, error)

    def _place(self, job: _Job, mailboxes: dict[str, _Mailbox]) -> None:
        """Open the mailbox, name the file, see whether it has been delivered before."""
        path = mailbox_path(self._template, job.recipient.address)
        mailbox = mailboxes.get(path)
        if mailbox is None:
            mailbox = mailboxes[path] = _Mailbox(path, self._open_mailbox(path))
            self._sweep(mailbox)
        job.mailbox = mailbox
        stem = name_stem(job.delivery.message, job.recipient)
        job.name = stem + self._host
        if (job.delivery.replayed or job.recipient.attempts) and mailbox.holds(stem):
            job.outcome = DELIVERED
        elif job.delivery.replayed:
            mailbox.clear(stem)

    def _write(self, jobs: Sequence[_Job], *, together: bool) -> None:
        """Write all files into tmp/ and make them durable."""
        opened: list[tuple[_Job, int]] = []
        # One after the other: threads that create files in one directory would only wait for each other.
        self._each(jobs, lambda job: opened.append((job, _write_file(job))))
        if together:
            for _job, descriptor in opened:
                os.close(descriptor)
            self._sync_filesystems(job for job, _descriptor in opened)
        elif len(opened) == 1:
            self._sync_files(opened)
        else:
            # Side by side: their commits to the file system's journal become one.
            shares = [opened[at :: self._threads] for at in range(min(self._threads, len(opened)))]
            for _ in self._pool.map(self._sync_files, shares):
                pass

    def _sync_files(self, opened: Sequence[tuple[_Job, int]]) -> None:
        for job, descriptor in opened:
            try:
                os.fsync(descriptor)
            except OSError as error:
                self._fail(job, error)
            finally:
                os.close(descriptor)

    def _sync_directories(self, jobs: Sequence[_Job], *, together: bool) -> None:
        """Make the entries in new/ durable, those that were found there too."""
        arrived = [job for job in jobs if job.outcome in (None, DELIVERED)]
        if together:
            self._sync_filesystems(arrived)
            return
        of_mailbox: dict[_Mailbox, list[_Job]] = {}
        for job in arrived:
            if job.mailbox is not None:
                of_mailbox.setdefault(job.mailbox, []).append(job)

        def sync(mailbox: _Mailbox) -> None:
            try:
                sync_directory("new", dir_fd=mailbox.descriptor)
            except OSError as error:
                for job in of_mailbox[mailbox]:
                    self._fail(job, error)

        if len(of_mailbox) == 1:
            sync(next(iter(of_mailbox)))
        else:
            for _ in self._pool.map(sync, of_mailbox):
                pass

    def _sync_filesystems(self, jobs: Iterable[_Job]) -> None:
        """One sync for each file system that holds some of the mailboxes."""
        of_device: dict[int, list[_Job]] = {}
        for job in jobs:
            if job.mailbox is not None and job.outcome in (None, DELIVERED):
                of_device.setdefault(os.fstat(job.mailbox.descriptor).st_dev, []).append(job)
        for together in of_device.values():
            mailbox = together[0].mailbox
            try:
                if mailbox is not None:
                    sync_filesystem(mailbox.descriptor)
            except OSError as error:
                for job in together:
                    self._fail(job, error)

    def _fail(self, job: _Job, error: Exception) -> None:
        """Give a job its outcome after an error, and leave nothing of it in tmp/."""
        where = mailbox_path(self._template, job.recipient.address)
        queue_id = job.delivery.message.queue_id
        if isinstance(error, OSError):
            reason = os.strerror(error.errno) if error.errno else str(error)
            self._log.error(
                "{queue_id}: cannot deliver into {path}: {reason}",
                queue_id=queue_id,
                path=os.path.join(self._root, where),
                reason=reason,
            )
            status = {errno.ENOSPC: _NO_SPACE, errno.EDQUOT: _MAILBOX_FULL}.get(error.errno or 0, _LOCAL_ERROR)
            # The path below the root says no more than the address; where the root lies is our own business.
            job.outcome = Outcome(Result.DEFERRED, status, f"{reason}: {where}")
        else:
            self._log.failure("{queue_id}: cannot deliver into {path}", queue_id=queue_id, path=where)
            job.outcome = Outcome(Result.DEFERRED, _LOCAL_ERROR, "Local error in delivery")
        if job.mailbox is not None:
            _remove(_temporary(job), job.mailbox)

    def _open_mailbox(self, path: str) -> int:
        whole = os.path.join(self._root, path)
        try:
            descriptor = os.open(f"{whole}/cur", _DIRECTORY)  # cur/ is made last
        except FileNotFoundError:
            self._make_mailbox(whole)
        else:
            os.close(descriptor)
        return os.open(whole, _DIRECTORY)

    def _make_mailbox(self, whole: str) -> None:
        """Create a maildir and what is missing above it, durably."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        path = self._root
        for part in os.path.relpath(whole, self._root).split("/"):
            parent, path = path, os.path.join(path, part)
            _make_directory(path)
            sync_directory(parent)  # always: whoever made it before us may not have got as far
        for name in ("tmp", "new", "cur"):
            _make_directory(os.path.join(whole, name))
        sync_directory(whole)

    def _sweep(self, mailbox: _Mailbox) -> None:
        """Remove what a crash left in tmp/ long ago; looked for once in a while for each mailbox."""
        now = self._now()
        if now - self._swept.get(mailbox.path, 0.0) < _STALE:
            return
        if len(self._swept) >= _MAX_SWEPT:
            self._swept.clear()
        self._swept[mailbox.path] = now
        try:
            listed = os.open("tmp", _DIRECTORY, dir_fd=mailbox.descriptor)
            try:
                for name in os.listdir(listed):
                    if now - os.stat(name, dir_fd=listed, follow_symlinks=False).st_mtime > _STALE:
                        os.unlink(name, dir_fd=listed)
            finally:
                os.close(listed)
        except OSError as error:  # tidying up is no reason to keep mail from anybody
            self._log.warn("cannot sweep {path}/tmp: {reason}", path=mailbox.path, reason=str(error))


def _make_directory(path: str) -> None:
    # Where it exists another thread was first; or it is a file, and opening it says so.
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)


def _remove(name: str, mailbox: _Mailbox) -> None:
    # Where it was not there, or cannot be removed, a sweep comes by later.
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=mailbox.descriptor)


def _temporary(job: _Job) -> str:
    """Where a message is written: each process has its own place.

    A delivery process may outlive its server for a moment, and the next server's has the same message to deliver: what
    one of them writes, the other must not rename. Both end in one name in new/, so it is still delivered once.
    """
    return f"tmp/{job.name}.P{os.getpid()}"


def _publish(job: _Job) -> None:
    if job.mailbox is not None:
        fd = job.mailbox.descriptor
        os.rename(_temporary(job), f"new/{job.name}{job.sizes}", src_dir_fd=fd, dst_dir_fd=fd)


def _write_file(job: _Job) -> int:
    """Write one message into tmp/ and return the open file. Raises `OSError`; then the caller removes it."""
    if job.mailbox is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    name, flags = _temporary(job), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(name, flags, 0o600, dir_fd=job.mailbox.descriptor)
    except FileExistsError:
        # From an attempt that a crash ended, by a process that had our number.
        os.unlink(name, dir_fd=job.mailbox.descriptor)
        descriptor = os.open(name, flags, 0o600, dir_fd=job.mailbox.descriptor)
    try:
        size, lines = _write_message(descriptor, job)
    except BaseException:
        os.close(descriptor)
        raise
    # What IMAP and quotas ask for again and again: octets on disk, and octets with CRLF line ends.
    job.sizes = f",S={size},W={size + lines}"
    return descriptor


def _write_message(descriptor: int, job: _Job) -> tuple[int, int]:
    """Write head and content with LF line ends; return how many octets and how many lines that made."""
    head = return_path_line(job.delivery.reverse_path) + delivered_to_line(job.recipient.address)
    head = head.replace(b"\r\n", b"\n")
    content = job.delivery.content.in_memory()
    if content is not None:
        content = head + _with_lf(content)
        _write_all(descriptor, content)
        return len(content), content.count(b"\n")
    _write_all(descriptor, head)
    size, lines, held = len(head), head.count(b"\n"), b""
    with job.delivery.content.open() as file:
        while chunk := file.read(_CHUNK):
            chunk = held + chunk
            # A CR at the end of a chunk waits for what follows it.
            held = b"\r" if chunk.endswith(b"\r") else b""
            octets = _with_lf(chunk.removesuffix(held) if held else chunk)
            _write_all(descriptor, octets)
            size += len(octets)
            lines += octets.count(b"\n")
    _write_all(descriptor, held)
    return size + len(held), lines


def _with_lf(octets: bytes) -> bytes:
    """CR LF becomes LF; a CR that stands alone stays."""
    stripped = octets.translate(None, b"\r")  # several times as fast as replacing pairs, and nearly always the same
    bare = len(octets) - len(stripped) != octets.count(b"\r\n")
    return octets.replace(b"\r\n", b"\n") if bare else stripped


def _write_all(descriptor: int, octets: bytes) -> None:
    written = os.write(descriptor, octets)
    while written < len(octets):
        octets = octets[written:]
        written = os.write(descriptor, octets)

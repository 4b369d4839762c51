"""A small disk of its own for a server of ours, which can be filled up and given room again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.instance import Instance
from tests.peers import process

MEBIBYTE = 2**20
RESERVE = 64 * MEBIBYTE
"""What the spool keeps free, to settle what is in the queue (`spool.reserve`)."""


def why_missing() -> str | None:
    """Why there can be no small disk on this machine, or None."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return "this needs root, who can mount a small file system"
    return None


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """The disk below `directory`. What takes the room away is a file, the filler."""

    directory: Path

    @property
    def filler(self) -> Path:
        return self.directory / "filler"

    def leave(self, octets: int) -> None:
        """Let the filler take what is free, but for so many octets."""
        free = os.statvfs(self.directory)
        wanted = free.f_bavail * free.f_frsize - octets
        with suppress(OSError), self.filler.open("ab", buffering=0) as file:
            while wanted > 0:
                wanted -= file.write(bytes(min(wanted, 4096)))

    def free(self) -> None:
        """Give back what the filler has taken."""
        self.filler.unlink(missing_ok=True)


@contextmanager
def small_disk(instance: Instance, room: int) -> Iterator[SmallDisk]:
    """Put the data of an instance that does not run onto a disk with `room` octets above the reserve.

    What it kept before is gone: its users have to be added again. Raises `PeerError` where nothing can be mounted.
    """
    shutil.rmtree(instance.data)
    instance.data.mkdir()
    options = f"size={RESERVE + room}"
    mounted = process.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", instance.data], timeout=10.0)
    if mounted.returncode != 0:
        raise process.PeerError(f"a tmpfs cannot be mounted: {mounted.stdout.strip()}")
    try:
        yield SmallDisk(instance.data)
    finally:
        unmounted = process.run(["umount", instance.data], timeout=10.0)
    assert unmounted.returncode == 0, unmounted.stdout

"""Puts the peers on this machine: `python -m tests.peers.install`, as root, on Debian and its kin.

Clients are installed as packages, with a policy-rc.d that keeps anything from starting. Debian's mail
servers exclude one another as packages, so Postfix is only downloaded and unpacked, with the libraries
that it lacks, into a scratch root in the cache directory; `tests.peers.postfix` runs it from there.
A second run finds everything in place and does nothing. The exit status is 0 when all is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.peers import postfix, signed_zone
from tests.peers.process import PeerError, cache_directory, run

CLIENTS = (
    "swaks",
    "libnet-ssleay-perl",
    "libauthen-sasl-perl",
    "libdigest-hmac-perl",
    "curl",
    "fetchmail",
    "mutt",
    *signed_zone.PACKAGES,
)
POLICY = Path("/usr/sbin/policy-rc.d")
_APT = (
    "apt-get",
    "-qq",
    "-o", "DPkg::Lock::Timeout=120",
    "-o", "APT::Sandbox::User=root",
)  # fmt: skip
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}


def main() -> int:
    """Install what is missing and say so in one line."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print("peers: nothing done: this needs root and apt-get")
        return 1
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = [*install_clients(), *unpack_postfix(), *create_ids()]
    except PeerError as problem:
        print(f"peers: failed: {problem}")
        return 1
    print(f"peers: {', '.join(done)}" if done else f"peers: all in place ({postfix.ROOT})")
    return 0


def install_clients() -> list[str]:
    """Install the client packages that are missing; returns what was done."""
    missing = [name for name in CLIENTS if not _installed(name)]
    if not missing:
        return []
    with nothing_starts():
        apt(["install", "--yes", "--no-install-recommends", *missing], timeout=600.0)
    return [f"installed {' '.join(missing)}"]


def unpack_postfix() -> list[str]:
    """Fetch Postfix and the libraries it lacks into the scratch root, whole or not at all."""
    if postfix.why_not_unpacked() is None:
        return []
    postfix.ROOT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=postfix.ROOT.parent) as name:
        scratch = Path(name)
        packages = ["postfix", *_libraries_not_installed("postfix")]
        apt(["download", *packages], timeout=300.0, cwd=scratch)
        root = scratch / "root"
        for archive in sorted(scratch.glob("*.deb")):
            _checked(["dpkg", "-x", archive, root], timeout=60.0)
        lacking = _unresolved_libraries(root)
        if lacking:
            raise PeerError(f"postfix still lacks {' '.join(lacking)}")
        shutil.rmtree(postfix.ROOT, ignore_errors=True)
        root.chmod(0o755)
        root.rename(postfix.ROOT)
    return [f"unpacked {' '.join(packages)} into {postfix.ROOT}"]


def create_ids() -> list[str]:
    """Create the user and the group without which Postfix refuses to run; returns what was done."""
    done = []
    if not _known(postfix.OWNER, user=True):
        _checked(
            ["useradd", "--system", "--user-group", "--no-create-home",
             "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", postfix.OWNER],
            timeout=30.0,
        )  # fmt: skip
        done.append(f"created user {postfix.OWNER}")
    if not _known(postfix.SETGID_GROUP, user=False):
        _checked(["groupadd", "--system", postfix.SETGID_GROUP], timeout=30.0)
        done.append(f"created group {postfix.SETGID_GROUP}")
    return done


@contextlib.contextmanager
def nothing_starts(policy: Path = POLICY) -> Iterator[None]:
    """While this lasts, packages that are installed start no service; policy-rc.d is put back after."""
    before = (policy.read_bytes(), policy.stat().st_mode & 0o7777) if policy.exists() else None
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        if before is None:
            policy.unlink(missing_ok=True)
        else:
            policy.write_bytes(before[0])
            policy.chmod(before[1])


def apt(arguments: Sequence[str], *, timeout: float, cwd: Path | None = None) -> str:
    """Run apt-get; when it fails, fetch the package lists and try once more. Raises `PeerError`."""
    try:
        return _checked([*_APT, *arguments], timeout=timeout, cwd=cwd)
    except PeerError:
        _checked([*_APT, "update"], timeout=300.0)
        return _checked([*_APT, *arguments], timeout=timeout, cwd=cwd)


def _libraries_not_installed(package: str) -> list[str]:
    """The libraries that apt would install along with a package, by its own simulation."""
    plan = apt(["--simulate", "install", "--no-install-recommends", package], timeout=60.0)
    words = [line.split() for line in plan.splitlines() if line.startswith("Inst ")]
    # `Inst name [old version] (new version ...)`: the bracket marks an upgrade of what is there.
    return [word[1] for word in words if word[1].startswith("lib") and not word[2].startswith("[")]


def _unresolved_libraries(root: Path) -> list[str]:
    """What the programs under a scratch root would not find when started from there."""
    programs = [*(root / "usr/sbin").iterdir(), *(root / "usr/lib/postfix/sbin").iterdir()]
    lines = run(["ldd", *programs], timeout=60.0, environment=postfix.environment(root)).stdout
    return sorted({line.split()[0] for line in lines.splitlines() if "not found" in line})


def _installed(package: str) -> bool:
    status = run(["dpkg-query", "--show", "--showformat=${Status}", package], timeout=30.0)
    return status.returncode == 0 and status.stdout.endswith(" installed")


def _known(name: str, *, user: bool) -> bool:
    try:
        if user:
            pwd.getpwnam(name)
        else:
            grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _checked(arguments: Sequence[str | Path], *, timeout: float, cwd: Path | None = None) -> str:
    finished = run(arguments, timeout=timeout, environment=_QUIET, cwd=cwd)
    if finished.returncode != 0:
        last = finished.stdout.strip().splitlines()[-3:]
        raise PeerError(f"{arguments[0]} {arguments[-1]}: {' / '.join(last)}")
    return finished.stdout


if __name__ == "__main__":
    sys.exit(main())

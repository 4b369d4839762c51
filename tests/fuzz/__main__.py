"""Looks for inputs that do something new to the SMTP server, and puts them into the corpus.

    python -m tests.fuzz --seconds 60 [--keep]

Inputs of the corpus are cut, joined and changed; what reaches a step between two lines of the server's code that
nothing has reached before is new. What fails is written to the current directory as fuzz-failure-N, and shown.
"""

import argparse
import hashlib
import random
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.server import CORPUS, run_core, run_session

WATCHED = (
    "/wire/smtp/server.py",
    "/wire/smtp/grammar.py",
    "/wire/smtp/content.py",
    "/wire/smtp/nodes.py",
    "/wire/buffer.py",
)
WATCHED_TOO = (
    "/mail/address.py",
    "/session/inbound.py",
    "/session/queueing.py",
    "/session/receiving.py",
    "/session/reception.py",
    "/session/authentication.py",
)
LONGEST = 400

Step = tuple[str, int, int]


def steps_of(octets: bytes) -> set[Step]:
    """The steps from line to line that the server's code takes."""
    steps: set[Step] = set()
    before: dict[int, int] = {}

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith(WATCHED + WATCHED_TOO):
            return None
        if event == "line":
            steps.add((frame.f_code.co_filename, before.get(id(frame), 0), frame.f_lineno))
            before[id(frame)] = frame.f_lineno
        elif event == "call":
            before.pop(id(frame), None)
        return trace

    sys.settrace(trace)
    try:
        run_core(octets)
        run_session(octets)
    finally:
        sys.settrace(None)
    return steps


def change(chance: random.Random, pool: list[bytes]) -> bytes:
    """A descendant of some inputs."""
    octets = chance.choice(pool)
    for _ in range(chance.randint(1, 4)):
        lines = octets.splitlines(keepends=True) or [b""]
        at = chance.randrange(len(lines))
        other = chance.choice(pool).splitlines(keepends=True) or [b""]
        match chance.randrange(7):
            case 0:
                lines[at] = chance.choice(other)
            case 1:
                lines.insert(at, chance.choice(other))
            case 2:
                lines[at : at + chance.randint(1, 3)] = []
            case 3:
                lines[at:] = other[chance.randrange(len(other)) :]
            case 4:
                lines.insert(at, lines[chance.randrange(len(lines))])
            case _:
                place = chance.randrange(len(lines[at]) + 1)
                odd = chance.choice(
                    [b"\r", b"\n", b"\0", b".", b" ", b"=", b"<", b">", b'"', b"\\", b"\xc3\xa9", b"\xff", b"9"]
                )
                lines[at] = lines[at][:place] + odd + lines[at][place + chance.randrange(2) :]
        octets = b"".join(lines)[:LONGEST]
    return octets


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="write what is new into the corpus")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    pool = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    seen: set[Step] = set()
    for octets in pool:
        seen |= steps_of(octets)
    print(f"{len(pool)} inputs take {len(seen)} steps")
    failures, tries, end = 0, 0, time.monotonic() + options.seconds
    while time.monotonic() < end:
        octets = change(chance, pool)
        tries += 1
        try:
            steps = steps_of(octets)
        except Exception:  # noqa: BLE001 - whatever it is, it is what is being looked for
            failures += 1
            Path(f"fuzz-failure-{failures}").write_bytes(octets)
            print(f"fuzz-failure-{failures}: {octets!r}")
            traceback.print_exc()
            continue
        if not steps <= seen:
            print(f"{len(steps - seen)} new steps: {octets!r}")
            seen |= steps
            pool.append(octets)
            if options.keep:
                (CORPUS / hashlib.sha256(octets).hexdigest()[:12]).write_bytes(octets)
    print(f"{tries} tries, {len(seen)} steps, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

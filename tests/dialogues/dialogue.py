r"""Scripted conversations, as text files.

At the top of a file stand settings, `word: words`, one to a line, which its runner understands. Then:

    # a comment, anywhere
    C: what the client says
    S: what the server says
    ---                       the packet ends here; else consecutive lines of one speaker are one packet
    == mark words             something that is not said: see the runner
    Q: <from> -> <to>, <to>   a message has come into the queue by now
    Q+ RET=HDRS ENVID=x       what MAIL (and the header) has asked for it; none of these: nothing
    Q+ <to> NOTIFY=NEVER      what RCPT has asked for a recipient of it
    Q| a line of it           none of these: its content does not matter here

Each line said ends with CRLF, unless `\c` stands at its end. `\r`, `\n`, `\t`, `\\` and `\xHH` stand for octets (a
space at the end of a line is `\x20`), `\{text*7}` for seven times the text, which may hold escapes.

In what is compared, `...` stands for any text within a line. `S: 250-...` is one or more lines of a reply that goes on,
`Q| ...` any number of lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|\{(.*?)\*(\d+)\}|(.?))", re.DOTALL)
_PLAIN = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}
_GOES_ON = re.compile(r"(\d{3}-)\.\.\.")


@dataclass(frozen=True)
class Said:
    """What one side says before the other one speaks again: some packets of octets, and the lines they were made of."""

    speaker: str
    packets: tuple[bytes, ...]
    lines: tuple[str, ...]

    @property
    def octets(self) -> bytes:
        return b"".join(self.packets)

    @property
    def pattern(self) -> re.Pattern[bytes]:
        """Matches what this may look like on the wire."""
        return re.compile(b"".join(_line_pattern(line) for line in self.lines), re.DOTALL)


@dataclass(frozen=True)
class Mark:
    """Something that happens beside the conversation."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Queued:
    """A message that must be in the queue by now."""

    sender: str
    recipients: tuple[str, ...]
    lines: tuple[str, ...]
    asked: tuple[str, ...] = ()

    @property
    def pattern(self) -> re.Pattern[bytes] | None:
        """Matches the whole content; None where it does not matter."""
        if not self.lines:
            return None
        parts = (b"(?:[^\n]*\n)*" if line == "..." else _line_pattern(line) for line in self.lines)
        return re.compile(b"".join(parts), re.DOTALL)


@dataclass(frozen=True)
class Dialogue:
    """One file."""

    name: str
    settings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    steps: tuple[Said | Mark | Queued, ...] = ()

    def words(self, setting: str) -> tuple[str, ...]:
        return self.settings.get(setting, ())


def read_dialogues(directory: Path) -> list[Dialogue]:
    """All dialogues of a directory, by name."""
    return [parse_dialogue(path.stem, path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.txt"))]


def parse_dialogue(name: str, text: str) -> Dialogue:
    """Raises `ValueError` where a line is none of the above."""
    lines = [
        (number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip() and not line.startswith("#")
    ]
    settings: dict[str, tuple[str, ...]] = {}
    while lines and (setting := re.fullmatch(r"([a-z-]+):(.*)", lines[0][1])):
        settings[setting[1]] = (*settings.get(setting[1], ()), *setting[2].split())
        lines.pop(0)
    return Dialogue(name, settings, tuple(_steps(name, lines)))


def octets_of(text: str) -> bytes:
    """The octets that a line with escapes stands for, its CRLF included."""
    whole = not text.endswith("\\c")
    return _unescape(text if whole else text[:-2]) + (b"\r\n" if whole else b"")


def _steps(name: str, lines: list[tuple[int, str]]) -> Iterator[Said | Mark | Queued]:
    kinds = [(_kind(name, number, line), line) for number, line in lines]
    for kind, group in groupby(kinds, key=lambda pair: pair[0]):
        said = [line for _, line in group]
        if kind == "=":
            yield from (Mark(tuple(line[2:].split())) for line in said)
        elif kind == "Q":
            yield from _queued(said)
        else:
            yield Said(kind, tuple(_packets(said)), tuple(line[3:] for line in said if line != "---"))


def _kind(name: str, number: int, line: str) -> str:
    if line == "---":
        return "C"
    if line[:3] in {"C: ", "S: "} or line in {"C:", "S:"} or line[:2] in {"==", "Q:", "Q+", "Q|"}:
        return line[0]
    raise ValueError(f"{name}, line {number}: {line!r}")


def _packets(lines: list[str]) -> Iterator[bytes]:
    packet = b""
    for line in lines:
        if line != "---":
            packet += octets_of(line[3:])
        elif packet:
            yield packet
            packet = b""
    if packet:
        yield packet


def _queued(lines: list[str]) -> Iterator[Queued]:
    heads = [at for at, line in enumerate(lines) if line.startswith("Q:")]
    for start, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        sender, _, recipients = lines[start][2:].partition("->")
        yield Queued(
            sender.strip(),
            tuple(sorted(word.strip() for word in recipients.split(",") if word.strip())),
            tuple(line[3:] for line in lines[start + 1 : end] if line.startswith("Q|")),
            tuple(sorted(_unescape(line[3:]).decode() for line in lines[start + 1 : end] if line.startswith("Q+"))),
        )


def _line_pattern(line: str) -> bytes:
    goes_on = _GOES_ON.fullmatch(line)
    if goes_on is not None:
        return b"(?:" + goes_on[1].encode() + b"[^\r\n]*\r\n)+"
    # The parts around "..." are unescaped one by one: an escaped octet is never the sign.
    *parts, last = line.split("...")
    return b"[^\r\n]*".join([*(re.escape(_unescape(part)) for part in parts), re.escape(octets_of(last))])


def _unescape(text: str) -> bytes:
    out, at = b"", 0
    for match in _ESCAPE.finditer(text):
        octet, repeated, times, plain = match.groups()
        out += text[at : match.start()].encode("utf-8")
        at = match.end()
        if octet is not None:
            out += bytes.fromhex(octet)
        elif repeated is not None:
            out += _unescape(repeated) * int(times)
        elif plain in _PLAIN:
            out += _PLAIN[plain]
        else:
            raise ValueError(f"an escape that means nothing: {match[0]!r}")
    return out + text[at:].encode("utf-8")

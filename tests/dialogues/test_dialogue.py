"""The dialogues' own grammar; and that a dialogue which does not tell the truth fails."""

from collections.abc import Callable

import pytest

from tests.dialogues.dialogue import Mark, Queued, Said, octets_of, parse_dialogue
from tests.dialogues.runners import hold_in_memory, one_by_one, whole

TRUE = """\
# A comment.
offer: max-size=100 lmtp
offer: max-errors=5
user: fred secret fred@example.org

S: 220 mx.example.net LMTP ...
C: LHLO a
---
C: MAIL FROM:<>
S: 250-...
S: 250 HELP
S: 250 2.1.0 Sender OK
C: RCPT TO:<anna@example.net>
C: BDAT 2 LAST
C:
S: 250 2.1.5 Recipient OK
S: 250 2.0.0 Queued as Q1
Q: <> -> anna@example.net
Q| Received: ...
Q| ...
Q|
== eof
== closed
"""


def test_dialogue_is_read() -> None:
    dialogue = parse_dialogue("true", TRUE)
    assert dialogue.words("offer") == ("max-size=100", "lmtp", "max-errors=5")
    assert dialogue.words("user") == ("fred", "secret", "fred@example.org")
    assert dialogue.words("nothing") == ()
    greeting, hello, *_, queued, eof, closed = dialogue.steps
    assert isinstance(greeting, Said)
    assert greeting.speaker == "S"
    assert hello == Said("C", (b"LHLO a\r\n", b"MAIL FROM:<>\r\n"), ("LHLO a", "MAIL FROM:<>"))
    assert queued == Queued("<>", ("anna@example.net",), ("Received: ...", "...", ""))
    assert (eof, closed) == (Mark(("eof",)), Mark(("closed",)))


def test_true_dialogue_holds() -> None:
    dialogue = parse_dialogue("true", TRUE)
    assert dialogue.steps
    hold_in_memory(dialogue, whole)
    hold_in_memory(dialogue, one_by_one, slow=True)


@pytest.mark.parametrize(
    ("told", "lie"),
    [
        ("S: 220 mx.example.net LMTP ...", "S: 220 mx.example.net ESMTP ..."),
        ("S: 250 2.1.0 Sender OK\n", ""),
        ("S: 250 2.1.0 Sender OK\n", "S: 250 2.1.0 Sender OK\nS: 250 2.1.0 Sender OK\n"),
        ("S: 250 HELP\n", ""),
        ("S: 250 2.0.0 Queued as Q1\n", ""),
        ("Q: <> -> anna@example.net", "Q: <> -> bob@example.net"),
        ("Q: <> -> anna@example.net", "Q: fred@example.org -> anna@example.net"),
        ("Q: <> -> anna@example.net\n", "Q: <> -> anna@example.net\nQ+ RET=FULL\n"),
        ("Q: <> -> anna@example.net\n", "Q: <> -> anna@example.net\nQ+ anna@example.net NOTIFY=NEVER\n"),
        ("Q| Received: ...", "Q| Deceived: ..."),
        ("Q| ...\nQ|\n", "Q|\n"),
        ("Q: <> -> anna@example.net\nQ| Received: ...\nQ| ...\nQ|\n", ""),
        ("Q: <> -> anna@example.net\n", "Q: <> -> anna@example.net\nQ: <> -> anna@example.net\n"),
        ("== eof\n", ""),
    ],
)
def test_lie_fails(told: str, lie: str) -> None:
    assert told in TRUE
    dialogue = parse_dialogue("lie", TRUE.replace(told, lie))
    with pytest.raises(AssertionError):
        hold_in_memory(dialogue, whole)


@pytest.mark.parametrize("line", ["C:without a space", "X: what", "S 220", "= closed", "mark", " C: indented"])
def test_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="line 3"):
        parse_dialogue("bad", f"\nS: 220 ...\n{line}\n")


def test_unknown_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="== nonsense"):
        hold_in_memory(parse_dialogue("bad", "S: 220 ...\n== nonsense\n"), whole)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("", b"\r\n"),
        ("NOOP", b"NOOP\r\n"),
        (r"NOOP\c", b"NOOP"),
        (r"a\r\n\t\\b\x00\xfF\c", b"a\r\n\t\\b\x00\xff"),
        (r"\{ab*3}\c", b"ababab"),
        (r"\{a\r\n*2}\c", b"a\r\na\r\n"),
        (r"x\{*\x2a*2}\c", b"x****"),
        ("größe", "größe\r\n".encode()),
    ],
)
def test_escapes(text: str, octets: bytes) -> None:
    assert octets_of(text) == octets


@pytest.mark.parametrize("text", [r"\q", r"\x0", r"\{a*}", "\\"])
def test_escape_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="means nothing"):
        octets_of(text)


def says(*lines: str) -> Callable[[bytes], bool]:
    said = Said("S", (), lines)
    return lambda octets: said.pattern.fullmatch(octets) is not None


def test_patterns() -> None:
    assert says("250 ...")(b"250 anything\r\n")
    assert not says("250 ...")(b"250 anything\r\n250 more\r\n")
    assert not says("250 ...")(b"250 anything")
    assert says("250 a...c")(b"250 abc\r\n")
    assert not says("250 a.c")(b"250 abc\r\n")
    assert says("250-...", "250 b")(b"250-x\r\n250-y\r\n250 b\r\n")
    assert not says("250-...", "250 b")(b"250 b\r\n")
    assert says(r"\x2e..x")(b"...x\r\n")

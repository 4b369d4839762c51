"""Where a header ends, and which fields it has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.headers import begins_with_field, field_names, header_length


@pytest.mark.parametrize(
    ("octets", "length"),
    [
        (b"", None),
        (b"A: b\r\n", None),
        (b"A: b\r\n\r", None),
        (b"A: b\r\n\r\n", 8),
        (b"A: b\r\n\r\nbody\r\n\r\n", 8),
        (b"\r\n", 2),
        (b"\r\nbody", 2),
        (b"\r", None),
        (b"\n", 1),
        (b"A: b\n\nbody", 6),
        (b"A: b\n\r\nbody", 7),
        (b"A: b\r\n\nbody", 7),
        (b"A: b\r\r\r\n", None),
        (b"A: b\r\n \r\n\r\n", 11),
    ],
)
def test_header_length(octets: bytes, length: int | None) -> None:
    assert header_length(octets) == length


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"A: b", b" "]), max_size=12).map(b"".join))
def test_header_length_does_not_depend_on_where_one_begins_to_look(octets: bytes) -> None:
    expected = header_length(octets)
    found = None
    for at in range(len(octets)):
        found = header_length(octets[: at + 1], at)
        if found is not None:
            break
    assert found == expected


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (b"", []),
        (b"Date: x\r\nSUBJECT : y\r\n\tfolded: no field\r\nx-1:z\r\n\r\n", [b"date", b"subject", b"x-1"]),
        (b"Received: a\nReceived: b\n\n", [b"received", b"received"]),
        (b"no field\r\nStill: one\r\n", [b"still"]),
        (b": nameless\r\n(x): y\r\nna me: z\r\ngr\xc3\xb6\xc3\x9fe: y\r\n", [b"(x)"]),
        (b"A:\r\nB:", [b"a", b"b"]),
    ],
)
def test_field_names(header: bytes, names: list[bytes]) -> None:
    assert field_names(header) == names


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"A: b\r\n", True),
        (b"A : b\r\n", True),
        (b"\r\nbody", True),
        (b"\nbody", True),
        (b"", False),
        (b"text", False),
        (b" A: b\r\n", False),
        (b"From fred Tue Nov 14\r\nA: b\r\n", False),
        (b"text\r\nA: b\r\n", False),
    ],
)
def test_begins_with_field(octets: bytes, expected: bool) -> None:
    assert begins_with_field(octets) is expected

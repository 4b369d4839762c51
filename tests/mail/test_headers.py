"""Where a header ends, and which fields it has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.headers import begins_with_field, field_names, header_length, noted


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


@pytest.mark.parametrize(
    ("header", "message_id", "tls_optional"),
    [
        (b"From: a\r\nMessage-ID: <1@a>\r\nTo: b\r\n\r\n", "<1@a>", False),
        (b"MESSAGE-Id :<1@a>\r\n\r\n", "<1@a>", False),
        (b"A: b\nmessage-id:\n <1@a>\n\n", "<1@a>", False),
        (b"A: b\r\nMessage-ID:  \r\n\t<1@a> (why)\r\n\r\n", "<1@a>", False),
        (b"A: b\r\nMessage-ID: <1@a>\r\nMessage-ID: <2@a>\r\n\r\n", "<1@a>", False),
        (b"A: b\r\nMessage-ID: <gr\xc3\xb6\xff@a>\r\n\r\n", "<grö\ufffd@a>", False),
        (b"A: b\r\nMessage-ID: 1@a\r\nX-Message-ID: <2@a>\r\n Message-ID: <3@a>\r\n\r\n", None, False),
        (b"A: b\r\nMessage-ID: <a b>\r\n\r\n", None, False),
        (b"A: b\r\nMessage-ID:\r\n\r\n<in@body>", None, False),
        (b"A: b\r\nMessage-ID:\r\nB: <2@a>\r\n\r\n", None, False),
        (b"A: b\r\nTLS-Required: No\r\nMessage-ID: <1@a>\r\n\r\n", "<1@a>", True),
        (b"tls-required:no", None, True),
        (b"A: b\r\nTLS-Required:\r\n\tNO \r\n\r\n", None, True),
        (b"A: b\r\nTLS-Required: None\r\nTLS-Required: Yes\r\n\r\n", None, False),
        (b"", None, False),
    ],
)
def test_what_is_noted_of_a_header(header: bytes, message_id: str | None, tls_optional: bool) -> None:
    length = header_length(header) or len(header)
    assert noted(header, length) == (message_id, tls_optional)
    # What stands behind it does not count.
    assert noted(header + b"\r\nMessage-ID: <x@y>\r\nTLS-Required: No\r\n", length) == (message_id, tls_optional)


@given(st.binary(max_size=80), st.integers(0, 80))
def test_noting_raises_nothing(octets: bytes, length: int) -> None:
    message_id, _ = noted(b"A:b\nMessage-ID:" + octets, length)
    assert message_id is None or message_id.startswith("<")

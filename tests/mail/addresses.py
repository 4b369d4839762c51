"""Addresses for Hypothesis: all that RFC 5321 section 4.1.2 and RFC 6531 section 3.3 allow, but for our own bounds."""

import string

from hypothesis import strategies as st

from mailsuite.mail.address import Address

ATEXT = string.ascii_letters + string.digits + "!#$%&'*+/=?^_`{|}~-"
# What we refuse on purpose is left out: C1 controls, U+2028 and U+2029.
_BEYOND_ASCII = st.characters(min_codepoint=0xA0, exclude_categories=["Cs"], exclude_characters="\u2028\u2029")
_ATOMS = st.text(st.sampled_from(ATEXT) | _BEYOND_ASCII, min_size=1, max_size=8)
_LETTERS = st.sampled_from(string.ascii_letters + string.digits) | _BEYOND_ASCII
_LABELS = st.builds(
    lambda first, middle, last: first + middle + last,
    _LETTERS,
    st.text(st.sampled_from(string.ascii_letters + string.digits + "-"), max_size=6),
    _LETTERS,
)

LOCAL_PARTS = st.lists(_ATOMS, min_size=1, max_size=3).map(".".join) | st.text(
    st.characters(min_codepoint=32, max_codepoint=126) | _BEYOND_ASCII, max_size=10
)
DOMAINS = st.lists(_LABELS, min_size=1, max_size=4).map(".".join)
LITERALS = st.ip_addresses(v=4).map(lambda address: f"[{address}]") | st.ip_addresses(v=6).map(
    lambda address: f"[IPv6:{address}]"
)
ADDRESSES = st.builds(Address, LOCAL_PARTS, DOMAINS | LITERALS)

"""SASLprep (RFC 4013) in its two kinds. The preparation itself is scramp's, which knows stored strings only.

What is looked up is a query string: code points that Unicode 3.2 did not know are let through. What becomes a
key is a stored string: they are prohibited (RFC 3454 section 7).
"""

from __future__ import annotations

from stringprep import in_table_a1

from scramp import ScramException  # type: ignore[import-untyped]
from scramp.utils import saslprep  # type: ignore[import-untyped]

# U+2022 is assigned, bidirectionally neutral, its own NFKC form, and neither mapped away nor prohibited.
_NEUTRAL = "\u2022"


def prepare_stored(text: str) -> str:
    """SASLprep for a stored string. ValueError where the text is prohibited or nothing of it remains."""
    if text.isascii() and text.isprintable() and text:
        return text
    try:
        prepared: str = saslprep(text)
    except ScramException as error:
        # The library's messages name rules, never the text.
        raise ValueError(f"not acceptable to SASLprep: {error.args[0]}") from None
    if not prepared:
        raise ValueError("nothing remains after SASLprep")
    return prepared


def prepare_query(text: str) -> str:
    """SASLprep for a query string: unassigned code points pass as they are. Else as `prepare_stored`.

    They have no decomposition, no combining class and no direction in Unicode 3.2, so a neutral character
    that stands in for each of them makes every rule come out the same.
    """
    inert = [char for char in text if char == _NEUTRAL or in_table_a1(char)]
    if not inert:
        return prepare_stored(text)
    masked = "".join(_NEUTRAL if in_table_a1(char) else char for char in text)
    restored = iter(inert)
    return "".join(next(restored) if char == _NEUTRAL else char for char in prepare_stored(masked))

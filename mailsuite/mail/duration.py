"""Times as people write them: seconds as a number, or text such as `5m`, `4h`, `5d`."""

from __future__ import annotations

import re

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds_of(value: object) -> object:
    """The seconds that a text means; what is no text stays as it is. Raises `ValueError` with the cure."""
    if not isinstance(value, str):
        return value
    match = _FORM.fullmatch(value)
    if match is None:
        raise ValueError('give seconds as a number, or text such as "30s", "5m", "4h", "5d"')
    return float(match[1]) * _SECONDS[match[2]]

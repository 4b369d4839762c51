"""The configuration reference, written from the settings themselves.

`python -m mailsuite.admin.reference > docs/configuration.md` renews the page; a test compares the two.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mailsuite import config
from mailsuite.config import Settings

_HEAD = """\
# Configuration

<!-- Written by `python -m mailsuite.admin.reference`; change the texts in mailsuite/config/. -->

One TOML file, named by `twistd mailsuite --config FILE` and `mailsuite --config FILE`. Every key is optional.
`mailsuite check FILE` tells what is wrong with one. `etc/mailsuite.toml` holds every key, commented out.

Durations are seconds, or text such as `"5m"`, `"4h"`, `"5d"`. Sizes are octets, or text such as `"50 MiB"`. Rates are
messages a second, or text such as `"10/s"`, `"100/m"`, `"600/h"`.
Relative paths begin at `data_directory`, and that begins at the directory of the configuration file.
"""

_PLAIN_TYPES = {str: "text", int: "number", float: "number", bool: "true or false", Path: "path", SecretStr: "text"}


def reference() -> str:
    """The whole page."""
    sections = [_HEAD]
    for name, model, repeated in _tables(Settings, ""):
        brackets = f"[[{name}]]" if repeated else f"[{name}]"
        title = f"`{brackets}`" if name else "Top level"
        rows = [f"\n## {title}\n\n{inspect.cleandoc(model.__doc__ or '')}\n", "| key | value | default | meaning |"]
        rows.append("|---|---|---|---|")
        for key, field in model.model_fields.items():
            if not _is_table(field):
                rows.append(f"| `{key}` | {_kind(field)} | {_default(key, field)} | {field.description} |")
        sections.append("\n".join(rows) + "\n")
    return "".join(sections)


def _tables(model: type[BaseModel], name: str) -> Iterator[tuple[str, type[BaseModel], bool]]:
    yield name, model, False
    for key, field in model.model_fields.items():
        inner = _model_of(field)
        if inner is not None:
            yield key, inner, typing.get_origin(field.annotation) is tuple


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    for candidate in (field.annotation, *typing.get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _is_table(field: FieldInfo) -> bool:
    return _model_of(field) is not None


def _kind(field: FieldInfo) -> str:
    if config.is_duration(field):
        return "duration"
    if config.is_size(field):
        return "size"
    if config.is_rate(field):
        return "rate"
    annotation: Any = field.annotation
    if isinstance(annotation, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        leaves = set(_leaves(annotation))
        return (
            "list of networks" if IPv4Network in leaves else "list of durations" if float in leaves else "list of text"
        )
    if typing.get_origin(annotation) is dict:
        return "table"
    return _PLAIN_TYPES[annotation] if isinstance(annotation, type) else "text"


def _leaves(annotation: object) -> Iterator[object]:
    """The types that an annotation is made of."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from _leaves(part)


def _default(key: str, field: FieldInfo) -> str:
    if key == "hostname":
        return "the machine's name"
    value: Any = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "needed"
    if value is None:
        return ""
    if config.is_duration(field):
        return f"`{_said(value, ((604800, 'w'), (86400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')))}`"
    if config.is_size(field):
        return f"`{_said(value, ((1024**3, ' GiB'), (1024**2, ' MiB'), (1024, ' KiB')))}`"
    return f"`{json.dumps(value, default=str)}`"


def _said(value: float, units: tuple[tuple[int, str], ...]) -> str:
    """A value in its largest whole unit, as it can be written in the file."""
    for factor, unit in units:
        if value and value % factor == 0 and not (unit == "w" and value < 2 * factor):
            return f'"{value / factor:g}{unit}"'
    return f"{value:g}"


if __name__ == "__main__":
    sys.stdout.write(re.sub(r"[ \t]+$", "", reference(), flags=re.MULTILINE))

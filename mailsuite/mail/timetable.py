"""Times as cron writes them: five fields (minute, hour, day, month, weekday) that local time must fit.

A field is `*`, a number, a range `1-5`, either of the last two in a list `1,3-5`, and `*` or a range may have a step:
`*/15`, `8-18/2`. Months and weekdays have names too (`jan`, `mon`); Sunday is 0 and 7. Where day and weekday are both
given (neither begins with `*`) a date must fit one of them, else both: as POSIX says of crontab.

Where clocks are put forward, a time that is left out comes as much later as they were; where they are put back, a time
that comes twice counts the first time, but with every hour given, both times: what should happen every quarter of an
hour goes on happening.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Final

_MONTH_NAMES: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS: Final = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_WEEKDAYS: Final = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_LENGTHS: Final = {month: 29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31 for month in range(1, 13)}
_PART: Final = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?")
_FIELDS: Final[tuple[tuple[str, int, int, dict[str, int]], ...]] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _WEEKDAYS),
)
# The 29th of February is at most eight years away, on a given weekday at most forty.
_MOST_DAYS: Final = 366 * 41


@dataclass(frozen=True, slots=True)
class Timetable:
    """When something is due, again and again. `either` says that day or weekday is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool = False

    @classmethod
    def parse(cls, text: str) -> Timetable:
        """Read the five fields. Raises `ValueError` with what is wrong and the cure."""
        words = text.split()
        if len(words) != len(_FIELDS):
            raise ValueError(
                f"it has {len(words)} fields, not five; write minute, hour, day, month and weekday, as in "
                '"30 6 * * 1-5"'
            )
        minutes, hours, days, months, weekdays = (
            _field(word, *field) for word, field in zip(words, _FIELDS, strict=True)
        )
        weekdays = frozenset(day % 7 for day in weekdays)
        either = not words[2].startswith("*") and not words[4].startswith("*")
        if not either and not any(day <= _LENGTHS[month] for day in days for month in months):
            raise ValueError("no such date exists; give a day that the month has")
        return cls(minutes, hours, days, months, weekdays, either)

    def next_after(self, now: float, zone: tzinfo | None = None) -> float:
        """The first time after `now` (both POSIX timestamps); `zone` is the machine's own where none is given."""
        # A day before: clocks that are put forward move times across midnight.
        day = datetime.fromtimestamp(now, zone).date() - timedelta(days=1)
        for _ in range(_MOST_DAYS):
            if self._fits(day):
                later = [moment for moment in self._moments(day, zone) if moment > now]
                if later:
                    return min(later)
            day += timedelta(days=1)
        raise ValueError("no such date comes")  # `parse` lets none through

    def _fits(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_day or by_weekday) if self.either else (by_day and by_weekday)

    def _moments(self, day: date, zone: tzinfo | None) -> list[float]:
        """All times of one day."""
        walls = [
            datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
            for hour in self.hours
            for minute in self.minutes
        ]
        moments = [wall.timestamp() for wall in walls]
        if len(self.hours) == 24:
            again = [wall.replace(fold=1) for wall in walls]
            moments += [wall.timestamp() for wall in again if _is_shown(wall)]
        return moments


def _is_shown(wall: datetime) -> bool:
    """Whether clocks ever show this time: when they are put forward some are left out."""
    shown = datetime.fromtimestamp(wall.timestamp(), wall.tzinfo)
    return shown.replace(tzinfo=None) == wall.replace(tzinfo=None)


def _field(text: str, name: str, lowest: int, highest: int, names: dict[str, int]) -> frozenset[int]:
    values: set[int] = set()
    for part in text.lower().split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f'{name} {text!r}: write "*", a number, a range "1-5", a list "1,3", a step "*/5"')
        star, first, last, step = match.groups()
        if star:
            begin, end = lowest, highest
        else:
            begin = _number(first, name, lowest, highest, names)
            end = begin if last is None else _number(last, name, lowest, highest, names)
            if step is not None and last is None:
                raise ValueError(f'{name} {text!r}: a step needs a range; write "{first}-{highest}/{step}"')
        if names is _WEEKDAYS and end == 0 and begin > 0:
            end = 7  # "fri-sun"
        if begin > end or step == "0":
            raise ValueError(f"{name} {text!r}: it holds nothing; write the lower one first, and a step of at least 1")
        values.update(range(begin, end + 1, int(step or 1)))
    return frozenset(values)


def _number(text: str, name: str, lowest: int, highest: int, names: dict[str, int]) -> int:
    number = names.get(text)
    if number is None and text.isascii() and text.isdigit():
        number = int(text[:9])
    if number is None or not lowest <= number <= highest:
        also = f", or {', '.join(names)}" if names else ""
        raise ValueError(f"{name} {text!r}: it goes from {lowest} to {highest}{also}")
    return number

"""Dates, times and date-times as intervals, for single value and range matching (PS3.4 C.2.2.2.1.3 and C.2.2.2.5).

A key with fewer components covers every moment it leaves open: 10 is 10:00:00 to 10:59:59.999999. A value of the
archive with fewer components stands for its first moment. Both may be written the old way, 2020.01.31 and 10:15:00.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Final, NamedTuple

_DATE: Final = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})\.(\d\d)\.(\d\d)")
_TIME: Final = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?")
_MOMENT: Final = r"\d{4,14}(?:\.\d{1,6})?(?:\+\d{4}|-(?:0\d|1[0-2])[0-5]\d)?"
_DATETIME: Final = re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.(\d{1,6}))?([+-]\d{4})?")
_DATETIME_RANGE: Final = re.compile(rf"({_MOMENT})?\s*-\s*({_MOMENT})?")
_DATETIME_SINGLE: Final = re.compile(_MOMENT)

FIRST_DAY: Final = date.min.toordinal()
LAST_DAY: Final = date.max.toordinal()
DAY: Final = 86_400_000_000
"""Microseconds; times are microseconds since midnight, date-times since 0001-01-01 in UTC."""


class Interval(NamedTuple):
    """Hold the first and last moment, both included: days, or microseconds; None: open on that side."""

    first: int | None
    last: int | None

    def __contains__(self, moment: object) -> bool:
        return (
            isinstance(moment, int)
            and (self.first is None or self.first <= moment)
            and (self.last is None or moment <= self.last)
        )

    @property
    def is_reversed(self) -> bool:
        """Tell whether nothing can be inside because the ends are the wrong way round."""
        return self.first is not None and self.last is not None and self.first > self.last


def read_date(text: str) -> Interval | None:
    """Read a DA value as days (proleptic ordinals); None when it is not a date."""
    match = _DATE.fullmatch(text.strip())
    if not match:
        return None
    year, month, day = (int(part) for part in match.groups() if part)
    try:
        ordinal = date(year, month, day).toordinal()
    except ValueError:
        return None
    return Interval(ordinal, ordinal)


def read_time(text: str) -> Interval | None:
    """Read a TM value as microseconds since midnight; None when it is not a time."""
    match = _TIME.fullmatch(text.strip())
    if not match:
        return None
    hour, minute, second, fraction = match.groups()
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 60:
        return None
    start = (int(hour) * 60 + int(minute or 0)) * 60 + int(second or 0)
    width = 3600 if minute is None else 60 if second is None else 1
    return _interval(start * 1_000_000, width * 1_000_000, fraction)


def _interval(start: int, width: int, fraction: str | None) -> Interval:
    if fraction is not None:
        start += int(fraction.ljust(6, "0"))
        width = 10 ** (6 - len(fraction))
    return Interval(start, start + width - 1)


def read_datetime(text: str, offset: int = 0) -> Interval | None:
    """Read a DT value as microseconds; `offset` is that of values without one, in minutes east of UTC."""
    match = _DATETIME.fullmatch(text.strip())
    if not match:
        return None
    *parts, fraction, zone = match.groups()
    fields = [int(part) for part in parts if part is not None]
    if fraction is not None and len(fields) < 6:
        return None
    try:
        start = datetime(*(fields + [1, 1])[: max(len(fields), 3)], tzinfo=UTC)  # type: ignore[arg-type]
    except ValueError:
        return None
    microseconds = _microseconds(start)
    end = _microseconds(_next(start, len(fields)))
    shift = (read_offset(zone) if zone else offset) or 0
    interval = _interval(microseconds, end - microseconds, fraction)
    return Interval(*(end - shift * 60_000_000 for end in interval if end is not None))

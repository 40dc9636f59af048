"""Dates, times and date-times as intervals, for single value and range matching (PS3.4 C.2.2.2.1.3, C.2.2.2.5).

A key with fewer components covers every moment it leaves open: 10 is 10:00:00 to 10:59:59.999999. A value of the
archive with fewer components stands for its first moment. Both may be written the old way: 2020.01.31, 10:15:00.
"""

import calendar
import re
from collections.abc import Callable
from datetime import date
from functools import lru_cache, partial
from typing import Final, NamedTuple

DAY: Final = 86_400_000_000
"""Microseconds in a day: times count from midnight, date-times from the day before 0001-01-01, UTC."""
MINUTE: Final = 60_000_000

_DATE: Final = re.compile(r"(\d{4})(\.?)(\d\d)\2(\d\d)", re.ASCII)
_TIME: Final = re.compile(r"(\d\d)(?:(:?)(\d\d)(?:\2(\d\d)(?:\.(\d{1,6}))?)?)?", re.ASCII)
_DATETIME: Final = re.compile(r"(\d{4})(\d\d)?(\d\d)?([\d.]*)([+-]\d{4})?", re.ASCII)
_OFFSET: Final = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)", re.ASCII)
# After a date-time, `-0500` is an offset and not the end of a range: offsets west of UTC go to -1200 (PS3.5 6.2).
_MOMENT: Final = r"[\d.]+(?:\+\d{4}|-(?:0\d|1[0-2])[0-5]\d)?"
_DATETIME_RANGE: Final = re.compile(rf"({_MOMENT})?\s*-\s*({_MOMENT})?", re.ASCII)


class Interval(NamedTuple):
    """Hold the first and the last moment, both included; None: open on that side."""

    first: int | None
    last: int | None

    def holds(self, moment: int) -> bool:
        """Tell whether a moment is inside."""
        return (self.first is None or self.first <= moment) and (self.last is None or moment <= self.last)


class Moment(NamedTuple):
    """Hold a value that may leave components open: its first and its last moment."""

    first: int
    last: int


Reader = Callable[[str], Moment | None]


@lru_cache(maxsize=4096)
def read_date(text: str) -> Moment | None:
    """Read a DA value as a proleptic ordinal of its day; None when it is not a date."""
    match = _DATE.fullmatch(text.strip())
    if not match:
        return None
    year, _, month, day = match.groups()
    try:
        ordinal = date(int(year), int(month), int(day)).toordinal()
    except ValueError:
        return None
    return Moment(ordinal, ordinal)


@lru_cache(maxsize=4096)
def read_time(text: str) -> Moment | None:
    """Read a TM value in microseconds since midnight; None when it is not a time."""
    match = _TIME.fullmatch(text.strip())
    if not match:
        return None
    hour, _, minute, second, fraction = match.groups()
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 60:
        return None
    start = ((int(hour) * 60 + int(minute or 0)) * 60 + int(second or 0)) * 1_000_000
    if fraction:
        start += int(fraction.ljust(6, "0"))
        return Moment(start, start + int(10 ** (6 - len(fraction))) - 1)
    seconds = 3600 if minute is None else 60 if second is None else 1
    return Moment(start, start + seconds * 1_000_000 - 1)


def read_datetime(text: str, offset: int = 0) -> Moment | None:
    """Read a DT value in microseconds; `offset` in minutes east of UTC is for values that have none."""
    match = _DATETIME.fullmatch(text.strip())
    if not match:
        return None
    year, month, day, clock, zone = match.groups()
    minutes = read_offset(zone) if zone else offset
    time = read_time(clock) if clock else Moment(0, DAY - 1)
    if minutes is None or time is None or ":" in clock:
        return None
    try:
        first = date(int(year), int(month or 1), int(day or 1))
    except ValueError:
        return None
    last = first
    if day is None:
        last_month = first.month if month else 12
        last = date(first.year, last_month, calendar.monthrange(first.year, last_month)[1])
    return Moment(
        first.toordinal() * DAY + time.first - minutes * MINUTE,
        last.toordinal() * DAY + time.last - minutes * MINUTE,
    )


def read_offset(text: str) -> int | None:
    """Read an offset from UTC such as -0330 in minutes; None when it is not one."""
    match = _OFFSET.fullmatch(text.strip())
    if not match:
        return None
    sign, hours, minutes = match.groups()
    return (int(hours) * 60 + int(minutes)) * (-1 if sign == "-" else 1)


def read_key(vr: str, text: str, offset: int = 0) -> Interval | None:
    """Read a DA, TM or DT key, a single value or a range open on at most one side; None when it is neither."""
    read: Reader = {"DA": read_date, "TM": read_time}.get(vr) or partial(read_datetime, offset=offset)
    text = text.strip()
    single = read(text)
    if single:
        return Interval(single.first, single.last)
    match = _DATETIME_RANGE.fullmatch(text) if vr == "DT" else None
    ends = match.groups() if match else text.split("-")
    if len(ends) != 2 or not any(ends):
        return None
    return _range(ends[0], ends[1], read)


def _range(low: str | None, high: str | None, read: Reader) -> Interval | None:
    first = read(low) if low and low.strip() else None
    last = read(high) if high and high.strip() else None
    if (low and not first) or (high and not last):
        return None
    return Interval(first.first if first else None, last.last if last else None)

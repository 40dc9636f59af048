"""Read the identifiers of the Composite Instance Root models (PS3.4 Y.3 and Z.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydicom.dataset import Dataset

from gateway.errors import FramesRequestInvalid, IdentifierError
from gateway.translate.levels import IMAGE, UNIQUE_KEYS

FRAME = "FRAME"
SIMPLE, CALCULATED, TIMES = "SimpleFrameList", "CalculatedFrameList", "TimeRange"


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """Hold the one Frame Range key of a request: `values` are frame numbers, triples of them, or two seconds."""

    keyword: str
    values: tuple[float, ...]

    def numbers(self, count: int, times: tuple[float, ...] | None) -> list[int]:
        """Give the numbers, from 1, of the frames asked for among `count`; `times` are theirs in seconds."""
        if self.keyword == TIMES:
            first, last = self.values
            return [number for number, time in enumerate(times or (), 1) if first <= time <= last]
        if self.keyword == SIMPLE:
            asked = [int(value) for value in self.values]
        else:
            triples = zip(*[iter(map(int, self.values))] * 3, strict=True)
            asked = [number for a, b, step in triples for number in range(a, min(b, count) + 1, step)]
        return [number for number in asked if 1 <= number <= count]


def read_composite(identifier: Dataset, *, frames: bool) -> tuple[Dataset, FrameRequest | None]:
    """Give an identifier of level IMAGE that names the same instances, and the frames asked for.

    `frames` allows level FRAME. Raises IdentifierError, FramesRequestInvalid.
    """
    level = str(identifier.get("QueryRetrieveLevel", "")).upper()
    if level not in ((IMAGE, FRAME) if frames else (IMAGE,)):
        raise IdentifierError("QueryRetrieveLevel", "must be IMAGE or FRAME" if frames else "must be IMAGE")
    plain = Dataset()
    for keyword in ("SpecificCharacterSet", *UNIQUE_KEYS.values()):
        if keyword in identifier:
            plain[keyword] = identifier[keyword]
    plain.QueryRetrieveLevel = IMAGE
    return plain, _frames(identifier) if level == FRAME else None


def _frames(identifier: Dataset) -> FrameRequest:
    given = {keyword: _values(identifier.get(keyword)) for keyword in (SIMPLE, CALCULATED, TIMES)}
    asked = [FrameRequest(keyword, values) for keyword, values in given.items() if values]
    if len(asked) != 1:
        raise FramesRequestInvalid("one of the Frame Range keys is needed and no other (PS3.4 Y.3.2.2)")
    if len(_values(identifier.get("SOPInstanceUID"))) > 1:
        raise FramesRequestInvalid("the frames of one instance can be asked for")
    (request,) = asked
    if not _WELL_FORMED[request.keyword](request.values):
        raise FramesRequestInvalid(f"{request.keyword} is malformed, or its frames do not increase")
    return request


def _is_increasing(numbers: Sequence[float]) -> bool:
    return numbers[0] >= 1 and all(a < b for a, b in pairwise(numbers))


def _are_ranges(values: Sequence[float]) -> bool:
    """Say whether values are triples of first, last and increment that do not overlap (PS3.4 Y.3.2.1.2)."""
    if len(values) % 3 or min(values[2::3]) < 1:
        return False
    bounds = [bound for first, last in zip(values[::3], values[1::3], strict=True) for bound in (first, last)]
    return (
        bounds[0] >= 1
        and all(a <= b for a, b in pairwise(bounds))
        and all(bounds[at - 1] < bounds[at] for at in range(2, len(bounds), 2))
    )


def _is_range(values: Sequence[float]) -> bool:
    return len(values) == 2 and values[0] <= values[1]


_WELL_FORMED = {SIMPLE: _is_increasing, CALCULATED: _are_ranges, TIMES: _is_range}


def _values(value: Any) -> tuple[Any, ...]:
    if value is None or value == "":
        return ()
    return tuple(value) if isinstance(value, list | tuple) or hasattr(value, "append") else (value,)

"""Make of the database's rows what is handed out, and say where their bytes are."""

from pathlib import Path
from typing import Any

from gateway.extent import Extent
from gateway.outbox import record
from gateway.outbox.entry import Entry, Place, State
from gateway.outbox.segments import segment_name

PLACE = "id, segment, position, size"
"""The columns of a Place, in its order."""


def file_name(identifier: int) -> str:
    """Name an entry's file of its own: 16 hex digits, of which the first 8 name the process that received it."""
    return f"{identifier:016x}.dcm"


def extent(folder: Path, place: Place) -> Extent:
    """Name the bytes of an entry."""
    if not place.segment:
        return Extent(folder / file_name(place.id), place.size)
    return record.extent(folder / segment_name(place.segment), place.id, place.position, place.size)


def is_there(folder: Path, place: Place) -> bool:
    """Tell whether an entry's bytes are there, or may be."""
    return extent(folder, place).exists()


def entry(folder: Path, row: tuple[Any, ...]) -> Entry:
    """Build an Entry from a row of the table `entries`."""
    values: dict[str, Any] = dict(zip(Entry.__slots__, row, strict=False))
    values["state"] = State(values["state"])
    values["replaces"] = bool(values["replaces"])
    segment, position = row[-2:]
    values["extent"] = extent(folder, Place(values["id"], segment, position, values["size"]))
    return Entry(**values)

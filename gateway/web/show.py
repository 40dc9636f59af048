"""Show results: tables for people, JSON for programs, progress while it lasts."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydicom.datadict import dictionary_keyword, tag_for_keyword
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

_WIDE = 1000  # no cell is cut where nobody looks at columns

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "studies": ("StudyInstanceUID", "StudyDate", "PatientID", "PatientName", "StudyDescription"),
    "series": ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription"),
    "instances": ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "InstanceNumber"),
}


def console(*, stderr: bool = False) -> Console:
    """Give a console on one of the standard streams."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _WIDE)


def line(**values: object) -> None:
    """Write one JSON object as a line."""
    sys.stdout.write(json.dumps({key: value for key, value in values.items() if value not in (None, "")}) + "\n")
    sys.stdout.flush()


def array(models: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON array, an element a line, as they come."""
    separator = "[\n"
    for model in models:
        sys.stdout.write(separator + json.dumps(model, ensure_ascii=False))
        separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")


def table(models: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """Make a table of DICOM JSON objects, an element a column."""
    made = Table(*columns)
    for column in made.columns:
        column.overflow = "fold"
    for model in models:
        made.add_row(*(Text(text(model, column)) for column in columns))
    return made


def elements(model: Mapping[str, Any]) -> Table:
    """Make a table of all elements of one DICOM JSON object."""
    made = Table("tag", "VR", "keyword", "value")
    made.columns[-1].overflow = "fold"
    for tag, element in sorted(model.items()):
        made.add_row(f"({tag[:4]},{tag[4:]})", str(element.get("vr", "")), _keyword(tag), Text(_text(element)))
    return made


def text(model: Mapping[str, Any], keyword: str) -> str:
    """Give the values of an element as people read them."""
    tag = tag_for_keyword(keyword)
    return _text(model.get(f"{tag:08X}", {})) if tag is not None else ""


def progress(err: Console, *, of_bytes: bool) -> Progress:
    """Make progress bars; they are shown on terminals only."""
    amount = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


def _keyword(tag: str) -> str:
    try:
        return dictionary_keyword(int(tag, 16))
    except (KeyError, ValueError):
        return ""


def _text(element: Any) -> str:
    values = element.get("Value", []) if isinstance(element, Mapping) else []
    joined = "\\".join(_value(value) for value in values) if isinstance(values, list) else ""
    return "".join(character if character.isprintable() else " " for character in joined)  # no escape sequences


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        names = [value[group] for group in ("Alphabetic", "Ideographic", "Phonetic") if value.get(group)]
        return "=".join(map(str, names)) if names else f"{len(value)} elements"
    return "" if value is None else str(value)

"""Copy instances out of the spool, byte for byte, without touching the queue."""

import filecmp
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gateway.errors import GatewayError
from gateway.outbox.entry import Entry

_UID = re.compile(r"[0-9][0-9.]{0,63}\Z")  # PS3.5 9.1; anything else might lead out of the folder


@dataclass(slots=True)
class Exported:
    """Count what became of the instances; `gone` had no file any more: delivered meanwhile, or lost."""

    written: int = 0
    bytes: int = 0
    already_there: int = 0
    gone: int = 0


def export(entries: Iterable[Entry], folder: Path) -> Exported:
    """Write each Part 10 file as STUDY/SOP-INSTANCE.dcm in `folder`, which is made; nothing is overwritten.

    Where other bytes have that name already, the outbox's number of the entry is added to it. Raises GatewayError
    when a file cannot be read or written; those that have their names by then are whole.
    """
    result = Exported()
    try:
        for entry in entries:
            try:
                source = entry.extent.open()
            except FileNotFoundError:
                result.gone += 1
                continue
            with source:
                _copy(source, entry, folder / (entry.study if _UID.match(entry.study) else "other"), result)
    except OSError as error:
        raise GatewayError(f"{error.filename or folder}: {error.strerror or error}") from error
    return result


def _copy(source: BinaryIO, entry: Entry, folder: Path, result: Exported) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    number = f"{entry.id:016x}"
    name = entry.sop_instance if _UID.match(entry.sop_instance) else number
    part = folder / f".{number}.part"
    try:
        with part.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        target = folder / f"{name}.dcm"
        if target.exists() and not filecmp.cmp(part, target, shallow=False):
            target = folder / f"{name}-{number}.dcm"
        if target.exists():
            result.already_there += 1
            return
        part.rename(target)
        result.written += 1
        result.bytes += entry.size
    finally:
        part.unlink(missing_ok=True)

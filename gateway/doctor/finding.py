"""What the doctor says."""

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """Say how bad it is: nothing to do, worth knowing, to be mended."""

    OK = "ok"
    NOTE = "note"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold one finding: about what, what was found, and what to do unless all is well."""

    mark: Mark
    about: str
    text: str
    advice: str = ""


def ok(about: str, text: str) -> Finding:
    """Say that all is well."""
    return Finding(Mark.OK, about, text)


def note(about: str, text: str, advice: str) -> Finding:
    """Say what is worth knowing."""
    return Finding(Mark.NOTE, about, text, advice)


def fault(about: str, text: str, advice: str) -> Finding:
    """Say what has to be mended."""
    return Finding(Mark.FAULT, about, text, advice)

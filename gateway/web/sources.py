"""Read the arguments of the commands: which files, which frames."""

import glob
from collections.abc import Iterable
from pathlib import Path

from gateway.web.templates import TemplateError


def files(arguments: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Give the files that paths, folders and glob patterns mean, each once and in order, and what means nothing.

    A folder means every file in it at any depth, `**` in a pattern any depth; names that begin with a dot are
    left out unless they are named themselves.
    """
    found: dict[Path, None] = {}
    nothing = []
    for argument in arguments:
        meant = _meant(argument)
        if not meant:
            nothing.append(argument)
        found.update(dict.fromkeys(meant))
    return list(found), nothing


def _meant(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        return _inside(path)
    if path.exists() or not glob.has_magic(argument):
        return [path] if path.exists() else []
    matched = [Path(name) for name in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207 - any pattern, absolute ones too
    return [file for one in matched for file in (_inside(one) if one.is_dir() else [one])]


def _inside(folder: Path) -> list[Path]:
    inside = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in inside if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def frame_numbers(text: str) -> list[int]:
    """Read numbers and ranges such as `1,4-6`; raises TemplateError."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(first) < 1:
            raise TemplateError(f"{part!r} is not a frame number or a range of them")
        numbers += range(int(first), int(last if dash else first) + 1)
    return numbers

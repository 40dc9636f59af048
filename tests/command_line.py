"""Run `dicom-gateway ...` as a process of its own, as a user does."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[1]


def environment() -> dict[str, str]:
    """Give an environment in which the package is found without an installation, and no archive is named."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DICOMWEB_")}
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "gateway.cli", *map(str, arguments)]


def run(
    *arguments: str | Path,
    answer: str = "",
    folder: Path | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """Run to the end with `answer` on the standard input and `more` in the environment."""
    return subprocess.run(
        command(*arguments),
        input=answer,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env=environment() | dict(more),
        check=False,
    )

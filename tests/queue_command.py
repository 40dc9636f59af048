"""Run `dicom-gateway queue` as its users do: a process of its own and a configuration file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


class QueueCommand:
    """`dicom-gateway queue` on the outbox below `folder`.

    Without a configuration file there, one is made with the archives `main` and `other`.
    """

    def __init__(self, folder: Path) -> None:
        self.spool = folder / "spool" / "outbox"
        self.config = folder / "config.yaml"
        if self.config.exists():
            return
        url = {"url": "http://127.0.0.1:9/dicom-web"}
        sections = {"archives": {"main": url, "other": url}, "spool": {"folder": str(self.spool.parent)}}
        self.config.write_text(yaml.safe_dump(sections))

    def __call__(self, *arguments: str | Path, answer: str = "") -> subprocess.CompletedProcess[str]:
        name, *rest = map(str, arguments)
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", "queue", name, "--config", str(self.config), *rest],
            input=answer,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": path, "COLUMNS": "80"},
        )

    def json(self, *arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
        """Run it with --json and give its lines."""
        ran = self(*arguments, "--json")
        assert ran.returncode == code, ran.stderr
        return [json.loads(line) for line in ran.stdout.splitlines()]

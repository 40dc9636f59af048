"""Try the gateway with dcmjs-dimse as its peer; scripts/try-dcmjs installs that and runs this."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import embedded_archive
import pydicom.data
from processes import free_port
from pydicom import dcmread

from gateway.app import running
from gateway.config import parse

_PATIENT = Path(pydicom.data.__file__).parent / "test_files/dicomdirtests/98892003"
_HERE = Path(__file__).parent


def main(modules: str) -> None:
    """Run the trial with the packages in a folder; raises AssertionError for what is wrong."""
    files = [path for path in sorted(_PATIENT.rglob("*")) if path.is_file()]
    studies: dict[str, list[str]] = {}
    for path in files:
        instance = dcmread(path, stop_before_pixels=True)
        studies.setdefault(str(instance.StudyInstanceUID), []).append(str(instance.SOPInstanceUID))
    study = max(studies, key=lambda uid: len(studies[uid]))
    destination = free_port()
    with TemporaryDirectory() as folder, embedded_archive.running(Path(folder) / "archive") as caller:
        config = {
            "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
            "archives": {"main": {"url": caller.archive.url, "profile": "embedded"}},
            "ae_titles": {"GATEWAY": {"archive": "main"}},
            "peers": {"DCMJS": {}, "DEST": {"host": "127.0.0.1", "port": destination}},
            "spool": {"folder": f"{folder}/spool", "high_water": 1.0},
        }
        with running(parse(config, "trial")) as gateway:
            done = subprocess.run(
                ["node", _HERE / "dcmjs.js", str(gateway.port), str(destination), study, *files],
                env={**os.environ, "NODE_PATH": modules},
                check=True,
                stdout=subprocess.PIPE,
                timeout=120,
            )
    _judge(json.loads(done.stdout.splitlines()[-1]), study, studies)


def _judge(results: dict[str, Any], study: str, studies: dict[str, list[str]]) -> None:
    expected, count = sorted(studies[study]), len(studies[study])
    statuses = {
        name: [one["status"] for one in result["responses"]] for name, result in results.items() if name != "moved"
    }
    print(*(f"{name}: {' '.join(f'{one:04X}' for one in found)}" for name, found in statuses.items()), sep="\n")
    assert statuses["echo"] == [0]
    assert statuses["store"] == [0] * sum(map(len, studies.values()))
    assert statuses["find"] == [0xFF00] * len(studies) + [0]
    assert {one["study"] for one in results["find"]["responses"] if one.get("study")} == set(studies)
    for name, instances in (("move", results["moved"]), ("get", results["get"]["got"])):
        *pending, final = results[name]["responses"]
        assert sorted(instances) == expected, name
        assert {one["status"] for one in pending} <= {0xFF00}, name
        assert {sum(one["counters"]) for one in pending} <= {count}, name
        assert (final["status"], final["counters"][1:]) == (0, [count, 0, 0]), name
    assert [(one["status"], one["counters"][1:]) for one in results["missing"]["responses"]] == [(0, [0, 0, 0])]
    assert statuses["unknown"] == [0xA801]


if __name__ == "__main__":
    main(sys.argv[1])

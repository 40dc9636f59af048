"""docs/tutorial.md does what it says: every block is executed, and what it shows is compared."""

import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import processes
from command_line import ROOT, environment

_BLOCK = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PORTS = ("11112", "11113", "8042")


@dataclass
class Block:
    language: str
    note: str
    text: str


def blocks():
    """Read the page, with free ports in place of its own."""
    page = (ROOT / "docs" / "tutorial.md").read_text()
    for port in _PORTS:
        page = page.replace(port, str(processes.free_port()))
    return [Block(language, note or "", text) for language, note, text in _BLOCK.findall(page)]


def answers(config):
    ports = re.findall(r"port: (\d+)", config)
    return lambda: all(processes.answers(int(port)) for port in ports[:2])


def shell(text, exported, folder, env):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join([*exported, text])],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    exported += [line for line in text.splitlines() if line.startswith("export ")]
    return done.stdout


def python(text, names):
    with StringIO() as out, redirect_stdout(out):
        exec(compile(text, "docs/tutorial.md", "exec"), names)
        return out.getvalue()


def compare(shown, printed, note):
    shown_lines, printed_lines = shown.splitlines(), printed.splitlines()
    if note == "as far as shown":
        missing = [line for line in shown_lines if not any(line in one for one in printed_lines)]
        assert missing == [], printed
    elif note == "in any order":
        assert sorted(printed_lines) == sorted(shown_lines)
    else:
        assert printed_lines == shown_lines


def program(folder):
    """Put `dicom-gateway` on the path, installed or not, and pynetdicom's namesakes of DCMTK's clients off it."""
    script = folder / "bin" / "dicom-gateway"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gateway.cli "$@"\n')
    script.chmod(0o755)
    own = str(Path(sys.executable).parent)
    rest = [entry for entry in os.environ["PATH"].split(os.pathsep) if entry != own]
    return {**environment(), "PATH": os.pathsep.join([str(script.parent), *rest])}


def test_the_tutorial_does_what_it_says(tmp_path: Path, monkeypatch):
    env = program(tmp_path)
    folder = tmp_path / "tutorial"
    folder.mkdir()
    monkeypatch.chdir(folder)
    config, served, *rest = blocks()
    assert (config.language, served.note) == ("yaml", "in another terminal")
    (folder / "tutorial.yaml").write_text(config.text)
    command = ["bash", "-c", f"exec {served.text}"]
    ready = answers(config.text)
    printed, exported, names, compared = "", [], {}, 0
    with processes.running(command, tmp_path / "gateway.log", ready, environment=env):
        for block in rest:
            if block.language == "sh":
                printed = shell(block.text, exported, folder, env)
            elif block.language == "python":
                printed = python(block.text, names)
            else:
                assert block.language == "text"
                compare(block.text, printed, block.note)
                compared += 1
    assert compared > 15

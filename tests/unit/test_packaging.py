"""What is delivered beside the code: unit, chart, examples, wheel."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from options import ROOT

from gateway.config import load

CHART = ROOT / "deploy" / "helm" / "dicom-gateway"
UNIT = ROOT / "deploy" / "systemd" / "dicom-gateway.service"
ARCHIVES = sorted((ROOT / "examples" / "archives").glob("*.yaml"))
REFERENCE = re.compile(r"\.Values((?:\.[A-Za-z]\w*)+)")
HELM = shutil.which("helm")


def run(*command):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


# -- the unit ------------------------------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path):
    """The unit with its program where this Python is, so that systemd finds it."""
    program = tmp_path / "dicom-gateway"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / "dicom-gateway.service"
    path.write_text(UNIT.read_text().replace("/opt/dicom-gateway/bin/dicom-gateway", str(program)))
    return path


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="the machine has no systemd")
def test_systemd_takes_the_unit_without_a_word(unit):
    done = run("systemd-analyze", "verify", "--man=no", unit)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="the machine has no systemd")
def test_the_units_sandbox_is_what_systemd_calls_ok(unit):
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit)
    assert done.returncode == 0, done.stdout[-300:]


def test_the_unit_gives_both_stops_their_grace():
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert int(seconds) > 2 * load(ROOT / "config.yaml").listen.grace
    assert "ExecReload=/bin/kill -HUP $MAINPID" in UNIT.read_text()


# -- the chart -----------------------------------------------------------------------------------------------


def templates():
    return sorted((CHART / "templates").glob("*.yaml"))


def test_the_chart_is_named_and_versioned_as_the_project():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["apiVersion"] == "v2"
    assert chart["name"] == "dicom-gateway"
    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()


def test_templates_use_the_values_that_there_are_and_close_what_they_open():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in templates():
        text = path.read_text()
        opened = re.findall(r"\{\{-?\s*(if|with|range)\b", text)
        assert len(opened) == len(re.findall(r"\{\{-?\s*end\b", text)), path.name
        assert text.count("{{") == text.count("}}")
        for reference in REFERENCE.findall(text):
            held = values
            for name in reference.strip(".").split("."):
                if held is values["config"]:
                    break  # the gateway's own options
                assert name in held, f"{path.name}: {reference}"
                held = held[name]


def test_the_schema_of_the_values_knows_each_of_them():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    for name, part in schema["properties"].items():
        if "properties" in part:
            assert set(values[name]) == set(part["properties"]), name


@pytest.mark.skipif(HELM is None, reason="helm is not here; the tests above look at what it would read")
@pytest.mark.parametrize("tls", [False, True])
def test_helm_renders_the_chart_to_a_gateway_that_its_own_checks_accept(tmp_path, tls):
    options = ["--set", "service.tlsPort=2762"] if tls else []
    tls_files = {"certificate": "/run/secrets/tls/tls.crt", "key": "/run/secrets/tls/tls.key"}
    more = tmp_path / "values.yaml"
    more.write_text(yaml.safe_dump({"config": {"listen": {"tls": tls_files}}, "secrets": ["tls"]} if tls else {}))
    done = run(HELM, "template", "pacs", CHART, "-f", more, *options)
    assert done.returncode == 0, done.stderr
    made = {part["kind"]: part for part in yaml.safe_load_all(done.stdout) if part}
    assert set(made) == {"ConfigMap", "PodDisruptionBudget", "Service", "StatefulSet"}
    config = tmp_path / "config.yaml"
    config.write_text(made["ConfigMap"]["data"]["config.yaml"])
    assert load(config).spool.folder == Path("/var/lib/dicom-gateway")
    container = made["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]
    assert {port["name"] for port in made["Service"]["spec"]["ports"]} == {
        port["name"] for port in container["ports"]
    }
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert made["StatefulSet"]["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "spool"


@pytest.mark.skipif(HELM is None, reason="helm is not here")
def test_helm_refuses_values_that_are_none():
    assert run(HELM, "template", "pacs", CHART, "--set", "service.prot=1").returncode != 0


# -- the examples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ARCHIVES, ids=lambda path: path.stem)
def test_the_example_for_each_archive_is_right(path):
    command = [sys.executable, "-m", "gateway.cli", "check-config", "--config", str(path)]
    environment = {**os.environ, "DCM4CHEE_CLIENT_SECRET": "x", "COLUMNS": "500"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    config_has = yaml.safe_load(path.read_text())["archives"]
    assert [archive["profile"] for archive in config_has.values()] == [path.stem]


def test_there_is_an_example_for_each_kind_of_archive():
    assert [path.stem for path in ARCHIVES] == ["aws", "azure", "dcm4chee", "google", "orthanc"]


# -- the wheel -----------------------------------------------------------------------------------------------


def test_the_wheel_has_every_module_and_the_command_and_nothing_else(tmp_path):
    done = run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry = next(archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    held = {name for name in names if ".dist-info/" not in name}
    written = {path for path in (ROOT / "gateway").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert "gateway/py.typed" in held  # the client's types are part of its API (PEP 561)
    assert held == {path.relative_to(ROOT).as_posix() for path in written}
    assert "dicom-gateway = gateway.cli:main" in entry

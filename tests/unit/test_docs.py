import re
import tomllib
from textwrap import dedent

import pytest
import yaml
from options import ROOT, default, options
from typer.main import get_command

from gateway.cli import cli
from gateway.config import parse

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# required from the start; every other dependency has to be explained
GIVEN = {
    "pynetdicom",
    "pydicom",
    "httpx",
    "pyyaml",
    "pydantic",
    "typer",
    "rich",
    "structlog",
    "prometheus-client",
    "starlette",
    "uvicorn",
}


def rows():
    """Read docs/configuration.md: option -> default, both without their backticks."""
    found = {}
    for line in (ROOT / "docs" / "configuration.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) >= 3:
            found[cells[0].strip("`")] = (cells[1].strip("`"), cells[2])
    return found


def written(field):
    """Write a default as docs/configuration.md does."""
    try:
        value = default(field)
    except KeyError:
        return "required"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return '""' if value == "" else str(value)


@pytest.mark.parametrize("path", options())
def test_every_option_is_explained_with_its_default(path):
    explained = rows()
    assert path in explained
    stated, words = explained[path]
    assert words
    # a sign-in's kind is its default in one model only
    if path != "archives.*.auth.kind":
        assert stated == written(options()[path])


def test_every_explained_option_is_there():
    assert sorted(set(rows()) - set(options())) == []


def test_the_changelog_has_the_current_version_on_top():
    versions = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == PROJECT["project"]["version"]


def test_every_further_dependency_is_explained():
    project = PROJECT["project"]
    required = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra in project["optional-dependencies"].values():
        required += extra
    names = {re.split(r"[\s<>=~!\[;]", requirement)[0].lower() for requirement in required}
    decisions = (ROOT / "docs" / "decisions.md").read_text()
    assert sorted(name for name in names - GIVEN if f"`{name}`" not in decisions) == []


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(p.name for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_between_the_pages_lead_to_files_that_exist(page):
    path = ROOT / page if (ROOT / page).exists() else ROOT / "docs" / page
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_the_scripts_that_the_readme_names_can_be_run():
    named = set(re.findall(r"(?<![\w/])((?:scripts|\.ci)/\w+)", (ROOT / "README.md").read_text()))
    assert {"scripts/run", "scripts/test", "scripts/check"} <= named
    for name in named:
        assert (ROOT / name).stat().st_mode & 0o111, name


GUIDES = ["installation.md", "connect-a-modality.md", "archives.md", "security.md", "operations.md"]


@pytest.mark.parametrize("page", GUIDES)
def test_the_commands_that_a_guide_names_are_there(page):
    known = set(get_command(cli).commands)
    named = set(re.findall(r"dicom-gateway ([a-z][a-z-]+)", (ROOT / "docs" / page).read_text()))
    assert named - known - {"service"} == set()


@pytest.mark.parametrize("page", GUIDES)
def test_the_options_that_a_guide_names_are_there(page):
    text = (ROOT / "docs" / page).read_text()
    sections = {path.partition(".")[0] for path in options()}
    named = {name for name in re.findall(r"`([a-z_]+(?:\.[a-z_*]+)+)`", text) if name.partition(".")[0] in sections}
    known = set(options())
    known |= {path.rsplit(".", depth)[0] for path in known for depth in range(1, path.count(".") + 1)}
    assert sorted(named - known) == []


@pytest.mark.parametrize("page", GUIDES)
def test_the_configurations_in_a_guide_have_no_faults(page):
    for block in re.findall(r"^ *```yaml\n(.*?)^ *```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL):
        parse(yaml.safe_load(dedent(block)), page)


def test_the_reasons_that_a_modality_is_refused_for_are_those_of_the_code():
    text = (ROOT / "docs" / "connect-a-modality.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "gateway" / "dimse").glob("*.py"))
    table = text.partition("| The log says |")[2]
    reasons = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(reasons) >= 6
    assert [reason for reason in reasons if reason not in code] == []

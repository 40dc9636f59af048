import re
import tomllib

import pytest
from options import ROOT, default, options

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

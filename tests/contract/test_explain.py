"""What `dicom-gateway explain` says of a query: asked, matched here and why, found, and how it would end."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from gateway_process import ROOT
from growing_archive import fill
from rich.console import Console
from scripted_server import Answer, scripted

from gateway.config import parse
from gateway.embedded.server import EmbeddedArchive
from gateway.errors import ConfigError, IdentifierError
from gateway.explain import Question, Root, read_identifier, run

STUDIES = 450


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("explain")
    fill(folder / "archive", STUDIES)
    return {"spool": {"folder": str(folder)}, "peers": {"OLD": {"lenient": True, "default_level": "SERIES"}}}


def explained(sections: dict[str, object], *keys: str, **options: object) -> tuple[bool, str]:
    out = Console(record=True, width=300, file=io.StringIO())
    is_answered = run(out, parse(sections, "test"), Question(keys, **options))  # type: ignore[arg-type]
    return is_answered, out.export_text()


def line(text: str, *words: str) -> str:
    """Give the one line that has all the words."""
    (found,) = (line for line in text.splitlines() if all(word in line for word in words))
    return found


def test_it_says_of_each_key_what_is_sent_and_what_is_matched_here_and_why(sections: dict[str, object]) -> None:
    is_answered, text = explained(
        sections,
        "PatientName=doe^1*",
        "StudyDate=20240101-",
        "PatientID",
        "NumberOfStudyRelatedSeries",
        "SeriesNumber=1",
    )
    assert is_answered
    assert "compare names in a way of their own" in line(text, "PatientName", "person name")
    assert "20240101-" in line(text, "StudyDate", "range")
    assert "returned" in line(text, "PatientID", "matches everything")
    assert "studies/{StudyInstanceUID}/series" in line(text, "NumberOfStudyRelatedSeries", "computed")
    assert "FF01" in line(text, "SeriesNumber", "cannot be matched")
    assert "StudyDate=20240101-" in line(text, "GET http://127.0.0.1:", "/v2/studies?")


def test_it_shows_the_first_results_and_where_the_time_goes(sections: dict[str, object]) -> None:
    _, text = explained(sections, "PatientName=doe^44*", "ModalitiesInStudy", "NumberOfStudyRelatedSeries")
    assert line(text, "1.2.826.0.1.449", "Doe^449", "OT")
    assert line(text, "first results: 10")
    assert [cell.strip() for cell in line(text, "search studies ").split("│")][2:5] == ["3", "450", "11"]
    assert [cell.strip() for cell in line(text, "search studies/(UID)/series").split("│")][2:4] == ["11", "11"]
    assert line(text, "matches: 11, with status FF00H, then 0000H; 450 entries were read")


def test_a_query_that_fails_says_so_with_its_status(sections: dict[str, object]) -> None:
    is_answered, text = explained(sections, "StudyDate=yesterday")
    assert not is_answered
    assert line(text, "A900H", "StudyDate")


def test_an_archive_that_fails_gives_the_status_that_a_peer_would_get() -> None:
    page = json.dumps([{"0020000D": {"vr": "UI", "Value": ["1.2"]}, "00100010": {"vr": "PN", "Value": ["[red]"]}}])
    with scripted(Answer(200, {}, page.encode()), Answer(500)) as server:
        sections = {
            "archives": {"main": {"url": server.url}},
            "ae_titles": {"GATEWAY": {}, "MAIN": {"archive": "main"}},
        }
        is_answered, text = explained(sections, "PatientName", title="MAIN")
    assert not is_answered
    assert line(text, "1.2", "[red]")
    assert line(text, "A700H", "HTTP 500")


def test_the_peer_s_configuration_holds(sections: dict[str, object]) -> None:
    is_answered, text = explained(sections, "Modality", peer="OLD")
    assert is_answered
    assert line(text, "GET", "/v2/series?")
    assert not explained(sections, "Modality", level="SERIES")[0]


@pytest.mark.parametrize("options", [{"title": "NOBODY"}, {"peer": "NOBODY"}])
def test_a_title_or_a_peer_that_is_not_configured_is_named(
    sections: dict[str, object], options: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match="NOBODY"):
        explained(sections, "PatientID", **options)


def test_the_archive_of_a_running_gateway_is_asked_on_its_port(sections: dict[str, object], tmp_path: Path) -> None:
    fill(tmp_path / "archive", 3)
    with EmbeddedArchive(tmp_path / "archive") as archive:
        port = int(archive.url.rsplit(":", 1)[1].split("/")[0])
        mine = {"spool": {"folder": str(tmp_path)}, "embedded": {"port": port}}
        assert "matches: 3" in explained(mine, "PatientID")[1]
        with pytest.raises(ConfigError, match=r"embedded\.port"):
            explained({"spool": {"folder": str(tmp_path)}}, "PatientID")


def test_items_and_tags_can_be_asked_for() -> None:
    keys = ["RequestAttributesSequence[0].ScheduledProcedureStepID=A\\B", "(0010,0010)=X", "00280010=512", "00281050"]
    identifier = read_identifier(keys, "SERIES")
    (item,) = identifier.RequestAttributesSequence
    assert list(item.ScheduledProcedureStepID) == ["A", "B"]
    assert (identifier.PatientName, identifier.Rows, identifier.QueryRetrieveLevel) == ("X", 512, "SERIES")
    assert identifier["WindowCenter"].is_empty


@pytest.mark.parametrize("key", ["Nonsense=1", "PatientName.PatientID=1", "Rows=many", "=1"])
def test_a_key_that_is_none_is_named(key: str) -> None:
    with pytest.raises(IdentifierError):
        read_identifier([key], "STUDY")


def test_the_command_exits_with_1_when_the_query_fails(sections: dict[str, object], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(sections))

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "gateway.cli", "explain", *arguments, "-c", str(config)]
        return subprocess.run(program, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT)

    good = command("PatientID=P7", "PatientName", "--model", Root.PATIENT)
    assert (good.returncode, "Doe^7" in good.stdout) == (0, True), good.stderr
    assert command("PatientID", "--level", "x").returncode == 1
    assert command("PatientID", "--peer", "x").returncode == 2

"""A query over an archive that grows while it is read: nothing missing, nothing twice, memory flat."""

import psutil
import pytest
from bench.usage import Usage
from find_client import Query
from growing_archive import fill, growing, study
from queries import identifier_of

from gateway.translate.identifier import decode_identifier, encode_identifier

STUDIES = 12_345
EXPLICIT = "1.2.840.10008.1.2.1"
PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1.1"


@pytest.fixture
def archive(tmp_path):
    fill(tmp_path / "archive", STUDIES)
    with growing(tmp_path / "archive", growth=9, first=STUDIES) as running:
        yield running


def found(port, level, keyword, **options):
    identifier = identifier_of(level, StudyDate="20240102", PatientName="", **{keyword: ""})
    with Query(port, encode_identifier(identifier, EXPLICIT), **options) as query:
        *matches, final = query.responses()
    assert final.status == 0x0000
    return [str(decode_identifier(match.identifier, EXPLICIT)[keyword].value) for match in matches]


@pytest.mark.timeout(120)
def test_12345_studies_come_once_each_in_flat_memory_while_new_ones_are_stored(archive, start_gateway, tmp_path):
    sections = {
        "archives": {"main": {"url": archive.url, "profile": "azure"}},
        "ae_titles": {"GATEWAY": {"archive": "main"}},
    }
    with start_gateway(tmp_path / "gateway", **sections, unknown_peers="accept") as gateway:
        before = psutil.Process(gateway.pid).memory_info().rss
        usage = Usage(gateway.pid)
        usage.reset_peak()
        studies = found(gateway.port, "STUDY", "StudyInstanceUID")
        grown = usage.peak() - before
    assert len(archive.added) > 500  # so that the pages really shifted
    assert len(studies) == len(set(studies))
    assert {study(number) for number in range(STUDIES)} <= set(studies)
    assert set(studies) <= {study(number) for number in range(STUDIES)} | set(archive.added)
    assert grown < 30e6, f"{grown / 1e6:.0f} MB"

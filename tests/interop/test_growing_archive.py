"""A query over an archive that grows while it is read: nothing missing, nothing twice, memory flat."""

import pytest
from bench.usage import Usage
from find_client import Query
from growing_archive import fill, growing, study
from queries import identifier_of

from gateway.translate.identifier import decode_identifier, encode_identifier

STUDIES = 12_345
EXPLICIT = "1.2.840.10008.1.2.1"
PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1.1"


def found(port, level, keyword, **options):
    identifier = identifier_of(level, StudyDate="20240102", PatientName="", **{keyword: ""})
    with Query(port, encode_identifier(identifier, EXPLICIT), **options) as query:
        *matches, final = query.responses()
    assert final.status == 0x0000
    return [str(decode_identifier(match.identifier, EXPLICIT)[keyword].value) for match in matches]


@pytest.mark.timeout(120)
def test_12345_studies_come_once_each_in_flat_memory_while_new_ones_are_stored(start_gateway, tmp_path):
    peaks = {}
    for count in (STUDIES // 10, STUDIES):
        folder = tmp_path / str(count)
        fill(folder / "archive", count)
        with growing(folder / "archive", growth=9, first=count) as archive:
            peaks[count], studies = peak_of_a_search(archive, start_gateway, folder / "gateway")
        assert len(archive.added) > 9 * count // 200  # so that the pages really shifted
        assert len(studies) == len(set(studies))
        assert {study(number) for number in range(count)} <= set(studies)
        assert set(studies) <= {study(number) for number in range(count)} | set(archive.added)
    grown = peaks[STUDIES] - peaks[STUDIES // 10]
    assert grown < 20e6, f"{grown / 1e6:.0f} MB more for ten times as many"


def peak_of_a_search(archive, start_gateway, folder):
    """Give the peak memory of a gateway in bytes while it answers with all studies, and these."""
    sections = {
        "archives": {"main": {"url": archive.url, "profile": "azure"}},
        "ae_titles": {"GATEWAY": {"archive": "main"}},
    }
    with start_gateway(folder, **sections, unknown_peers="accept") as gateway:
        studies = found(gateway.port, "STUDY", "StudyInstanceUID")
        return Usage(gateway.pid).peak(), studies

"""What waits is matched as what is archived: the brute-force matcher finds the same, wherever an instance is."""

from datetime import timedelta

import brute_force
import hospital
import pytest
import queries
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.dicomweb.client import Client
from gateway.dimse.backlog import Backlog, Headers
from gateway.dimse.merge import merged
from gateway.dimse.scan import Scan
from gateway.embedded.server import EmbeddedArchive
from gateway.errors import IdentifierError
from gateway.outbox import Arrival, Limits, Outbox, Receipt
from gateway.translate.part10 import read_file_meta
from gateway.translate.profiles import PROFILES
from gateway.translate.search import Model, Negotiated, plan, project

UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
INSTANCES = list(hospital.instances())
MOST = 10_000


def is_archived(number, instance):
    """Keep a third of the studies in the archive, a third in the outbox, and cut a third in two."""
    where = list(dict.fromkeys(one.StudyInstanceUID for one in INSTANCES)).index(instance.StudyInstanceUID) % 3
    return where == 0 or (where == 1 and number % 2 == 0)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    profile = PROFILES["azure"]
    with (
        EmbeddedArchive(folder / "archive") as archive,
        Client(archive.url, profile=profile) as client,
        Outbox(folder / "outbox", Limits(high_water=1)) as outbox,
    ):
        for number, instance in enumerate(INSTANCES):
            upload = hospital.upload(instance, folder)
            if is_archived(number, instance):
                (outcome,) = client.store([upload])
                assert outcome.stored
            else:
                put(outbox, upload)
        yield client, outbox, Headers()


def put(outbox, upload):
    data = upload.extent.path.read_bytes()
    with upload.extent.path.open("rb") as file:
        meta = read_file_meta(file)
    arrival = Arrival(
        "main", upload.study, upload.series, upload.sop_class, upload.sop_instance, meta.transfer_syntax
    )
    with outbox.incoming("", data[: meta.offset]) as incoming:
        incoming.write(memoryview(data)[meta.offset :])
        assert outbox.commit(incoming, arrival) is Receipt.QUEUED


@settings(
    max_examples=150, deadline=timedelta(seconds=20), database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.sampled_from(["STUDY", "SERIES", "IMAGE"]).flatmap(queries.identifiers))
def test_the_answer_is_the_brute_force_matcher_s_wherever_the_instances_are(places, identifier):
    client, outbox, headers = places
    try:
        search = plan(identifier, Model.STUDY_ROOT, client.profile, Negotiated(relational=True))
    except IdentifierError:
        return
    backlog = Backlog(outbox, headers, "main", search, MOST)
    rows = [row for page in merged(Scan(client, search, MOST), backlog) for row in page]
    keyword = UNIQUE[search.level]
    found = [str(project(search, row, retrieve_aet="GATEWAY")[keyword].value) for row in rows]
    assert sorted(found) == sorted(
        {
            str(instance[keyword].value)
            for instance in INSTANCES
            if brute_force.matches(identifier, instance, search.level, ignored=search.unsupported_keys)
        }
    )

"""An archive that is away for long, a sender that goes on for long: what is full says so, and nothing is lost."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from bench import wire
from bench.instances import SOP_CLASS, Batch
from bench.usage import Usage
from gateway_process import GatewayProcess
from load import check, sending, waiting
from processes import await_true, free_port

from gateway.embedded.server import EmbeddedArchive

PACE = {"connections": 4, "retry_first": 0.1, "retry_longest": 0.5}


def gateway_for(folder: Path, archive: int, **sections: object) -> GatewayProcess:
    return GatewayProcess(
        folder / "gateway",
        archives={"far": {"url": f"http://127.0.0.1:{archive}/v2", "profile": "embedded", "delivery": PACE}},
        ae_titles={"GATEWAY": {"archive": "far", "acknowledge": "spooled"}},
        unknown_peers="accept",
        log={"format": "json"},
        **sections,
    )


def test_through_an_outage_senders_are_taken_until_the_spool_is_full_and_all_that_was_taken_arrives(tmp_path):
    archive, spool = free_port(), tmp_path / "gateway" / "spool"
    with gateway_for(tmp_path, archive, spool={"quota": 8_000_000}) as gateway:
        with sending(gateway.port) as senders:
            await_true(lambda: all(0xA700 in one.statuses or one.rejected for one in senders), 60, "a full spool")
        taken = sum(len(one.acknowledged) for one in senders)
        assert taken > 50
        assert waiting(spool) == taken
        for sender in senders:
            assert sender.statuses <= {0x0000, 0xA700}
        with EmbeddedArchive(tmp_path / "far", port=archive) as far:
            await_true(lambda: waiting(spool) == 0, 60, "the delivery")
            for sender in senders:
                check(far.url, sender)
            with sending(gateway.port, 1) as [again]:
                await_true(lambda: len(again.acknowledged) > 3, what="success again")


@contextmanager
def few_descriptors(soft: int) -> Iterator[None]:
    """Have what is started meanwhile begin with so many descriptors, as from a shell."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


@pytest.mark.timeout(60)
def test_a_gateway_started_with_few_descriptors_holds_more_associations_than_these(tmp_path):
    gateway = gateway_for(tmp_path, free_port(), listen={"max_associations": 400, "max_associations_per_peer": 400})
    contexts = [(SOP_CLASS, wire.EXPLICIT_LE)]
    with ExitStack() as stack:
        with few_descriptors(256):
            stack.enter_context(gateway)
        held = [wire.associate("127.0.0.1", gateway.port, "GATEWAY", "MANY", contexts) for _ in range(300)]
        assert len(held) == 300
        for connection in held:
            wire.release(connection)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_association_may_bring_20_000_instances_in_flat_memory(tmp_path):
    batch = Batch(run=77, count=20_000, size=2_000)
    with gateway_for(tmp_path, free_port()) as gateway:
        await_true(lambda: '"listening"' in gateway.log, what="every process")
        connection = wire.associate("127.0.0.1", gateway.port, "GATEWAY", "BENCH", [(SOP_CLASS, wire.EXPLICIT_LE)])
        usage = Usage(gateway.pid)
        grown = []
        for numbers in (range(2_000), range(2_000, 20_000)):
            usage.reset_peak()
            for number in numbers:
                connection.send((batch._prefix(number),))
                assert wire.answer(connection) == 0x0000
            grown.append(usage.peak())
        wire.release(connection)
        assert waiting(tmp_path / "gateway" / "spool") == 20_000
        assert grown[1] < grown[0] + 20e6, f"{grown[0] / 1e6:.0f} MB, then {grown[1] / 1e6:.0f} MB"

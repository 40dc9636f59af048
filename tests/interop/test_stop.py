"""SIGTERM ends the gateway cleanly: what runs finishes, nothing new begins, nothing is lost."""

import signal

import dcmtk
import processes
from bench import wire
from bench.instances import SOP_CLASS, Batch
from spooled import left_over

ONE = Batch(run=1, count=1, size=400_000)


def associate(gateway):
    return wire.associate("127.0.0.1", gateway.port, "GATEWAY", "BENCH", [(SOP_CLASS, wire.EXPLICIT_LE)])


def test_a_running_store_finishes_and_is_kept(start_gateway, tmp_path):
    with start_gateway(tmp_path) as gateway:
        connection = associate(gateway)
        whole = ONE.prefixes[0] + ONE.tail
        connection.send((whole[:300_000],))
        gateway.process.send_signal(signal.SIGTERM)
        processes.await_true(lambda: not processes.answers(gateway.port), what="the port being closed")
        connection.send((whole[300_000:],))
        assert wire.answer(connection) == 0x0000
        assert gateway.process.wait(15) == 0
        connection.close()
    with start_gateway(tmp_path) as gateway:
        result = dcmtk.findscu(gateway.port, "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={ONE.study}")
        assert len(result.responses) == 1


def test_an_idle_association_does_not_delay_the_end(start_gateway, tmp_path):
    with start_gateway(tmp_path) as gateway:
        connection = associate(gateway)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(10) == 0
        connection.close()


def test_a_store_that_hangs_is_cut_after_the_grace_time_and_leaves_nothing(start_gateway, tmp_path):
    with start_gateway(tmp_path, listen={"grace": 1}) as gateway:
        connection = associate(gateway)
        connection.send(((ONE.prefixes[0] + ONE.tail)[:300_000],))
        outbox = tmp_path / "spool" / "outbox"
        processes.await_true(lambda: left_over(outbox), what="an instance under way")
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(15) == 0
        connection.close()
    assert not left_over(outbox)

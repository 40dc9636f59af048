import threading

import pytest

from gateway import errors
from gateway.delivery.breaker import Breaker, Circuit
from gateway.delivery.retry import RetryPolicy, delay
from gateway.errors import ArchiveBusy, GatewayError, InstanceRefused
from gateway.translate.stow_outcomes import REASONS, Disposition, failed, refused, stored

DOWN = errors.ArchiveUnreachable("main", "refused")
POLICY = RetryPolicy(first=2, longest=300, most_patience=3600)


def test_the_wait_doubles_up_to_its_longest() -> None:
    waits = [delay(DOWN, attempt, 1, POLICY) for attempt in range(1, 12)]
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert delay(DOWN, 10_000, 1, POLICY) == 300


def test_chance_takes_any_share_of_the_wait() -> None:
    assert [delay(DOWN, 3, chance, POLICY) for chance in (0, 0.25, 0.5, 1)] == [0, 2, 4, 8]


def test_retry_after_is_waited_for_whatever_the_attempts() -> None:
    for attempts in (1, 50):
        assert delay(ArchiveBusy("main", "HTTP 429", retry_after=120), attempts, 0, POLICY) == 120
        assert delay(ArchiveBusy("main", "HTTP 429", retry_after=120), attempts, 0.5, POLICY) == 121
    assert delay(ArchiveBusy("main", "HTTP 429", retry_after=1e9), 1, 0, POLICY) == 3600
    assert delay(ArchiveBusy("main", "HTTP 503"), 1, 1, POLICY) == 2


@pytest.mark.parametrize(
    ("error", "most"),
    [
        (DOWN, None),
        (ArchiveBusy("main", "HTTP 503"), None),
        (errors.SignInRefused("main", "HTTP 403"), None),
        (errors.NotFound("main", "HTTP 404"), None),
        (errors.ArchiveBroken("main", "HTTP 500"), 100),
        (errors.AnswerUnreadable("main", "cut"), 100),
        (InstanceRefused("main", 0x0110), 20),
        (errors.SpoolBroken("EIO"), 20),
        (InstanceRefused("main", 0xA900), 1),
        (errors.TooLarge("main", "HTTP 413"), 1),
        (errors.RequestRefused("main", "HTTP 400"), 1),
    ],
)
def test_an_outage_is_waited_out_and_an_instance_at_fault_is_set_aside(error: GatewayError, most: int | None) -> None:
    if most is None:
        assert delay(error, 10**6, 0.5, POLICY) is not None
        return
    assert delay(error, most, 0.5, POLICY) is None
    assert most == 1 or delay(error, most - 1, 0.5, POLICY) is not None


@pytest.mark.parametrize(
    ("reason", "disposition", "status"),
    [
        (272, Disposition.RETRY, 0x0110),
        (43264, Disposition.SET_ASIDE, 0xA900),
        (43265, Disposition.SET_ASIDE, 0xA901),
        (45070, Disposition.DUPLICATE, 0x0111),
        (45071, Disposition.RETRY, 0xA700),
        (0xA700, Disposition.RETRY, 0xA700),
        (0xA777, Disposition.SET_ASIDE, 0xA777),
        (0xA922, Disposition.SET_ASIDE, 0xA922),
        (0xC409, Disposition.SET_ASIDE, 0xC409),
        (0x0122, Disposition.SET_ASIDE, 0x0122),
        (0x0213, Disposition.RETRY, 0xA700),
        (45063, Disposition.SET_ASIDE, 0x0110),
        (4711, Disposition.SET_ASIDE, 0x0110),
        (None, Disposition.RETRY, 0x0110),
    ],
)
def test_each_failure_reason_has_one_outcome(reason: int | None, disposition: Disposition, status: int) -> None:
    verdict = refused("main", reason, "DICOM101: (0020,000D) - é" + "x" * 80)
    assert (verdict.disposition, verdict.status) == (disposition, status)
    assert len(verdict.comment) <= 64
    assert verdict.comment.isascii()


def test_a_file_that_the_archive_cannot_read_is_not_understood() -> None:
    assert refused("main", 43264, "", named=False).status == 0xC000


def test_no_failure_reaches_a_peer_as_success_or_warning() -> None:
    for reason in range(0x10000):
        status = refused("main", reason, "").status
        assert status != 0
        assert status & 0xF000 != 0xB000
        assert status & 0xFF00 != 0xFF00


def test_rows_of_the_table_are_reachable_and_in_order() -> None:
    for number, row in enumerate(REASONS):
        assert row.low <= row.high
        earlier = REASONS[:number]
        assert any(
            not any(other.low <= code <= other.high for other in earlier) for code in range(row.low, row.high + 1)
        )


@pytest.mark.parametrize(
    ("error", "disposition", "status"),
    [
        (errors.ArchiveUnreachable("main", ""), Disposition.RETRY, 0xA700),
        (errors.ArchiveBusy("main", ""), Disposition.RETRY, 0xA700),
        (errors.ArchiveBroken("main", ""), Disposition.RETRY, 0xA700),
        (errors.SignInRefused("main", ""), Disposition.RETRY, 0x0124),
        (errors.NotFound("main", ""), Disposition.RETRY, 0xA700),
        (errors.TooLarge("main", ""), Disposition.SET_ASIDE, 0xA700),
        (errors.RequestRefused("main", "", http_status=415), Disposition.SET_ASIDE, 0xC000),
        (errors.RequestRefused("main", "", http_status=409), Disposition.SET_ASIDE, 0x0110),
        (errors.AnswerUnreadable("main", ""), Disposition.RETRY, 0x0110),
        (errors.SpoolFull(""), Disposition.RETRY, 0xA700),
    ],
)
def test_each_failure_of_a_request_has_one_outcome(
    error: GatewayError, disposition: Disposition, status: int
) -> None:
    verdict = failed(error)
    assert (verdict.disposition, verdict.status, verdict.cause) == (disposition, status, error)


def test_a_warning_is_success_unless_peers_shall_see_it() -> None:
    assert stored(None).status == 0
    assert stored(45063).status == 0xB007
    assert stored(45063, frozenset({1, 45063})).status == 0
    assert stored(1).status == 0
    assert stored(0xB000).status == 0xB000
    assert stored(4711).status == 0
    assert stored(1).disposition is Disposition.DONE


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def breaker() -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(failures=3, pause=2, longest=5, clock=clock), clock


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed()


def test_only_failures_in_a_row_open_the_circuit() -> None:
    circuit, _ = breaker()
    fail(circuit, 2)
    circuit.succeeded()
    fail(circuit, 2)
    assert (circuit.state, circuit.permit()) == (Circuit.CLOSED, 0)
    fail(circuit, 1)
    assert (circuit.state, circuit.permit()) == (Circuit.OPEN, 2)


def test_after_the_pause_one_request_probes_and_success_closes_the_circuit() -> None:
    circuit, clock = breaker()
    fail(circuit, 3)
    clock.now += 2
    assert circuit.permit() == 0
    assert circuit.state is Circuit.PROBING
    assert circuit.permit() > 0
    circuit.succeeded()
    assert (circuit.permit(), circuit.permit()) == (0, 0)


def test_each_failed_probe_doubles_the_pause_up_to_its_longest() -> None:
    circuit, clock = breaker()
    fail(circuit, 3)
    pauses = []
    for _ in range(4):
        pauses.append(circuit.permit())
        clock.now += pauses[-1]
        assert circuit.permit() == 0
        circuit.failed()
    assert pauses == [2, 4, 5, 5]


def test_late_failures_of_requests_under_way_do_not_lengthen_the_pause() -> None:
    circuit, clock = breaker()
    fail(circuit, 8)
    clock.now += 2
    assert circuit.permit() == 0
    circuit.failed()
    assert circuit.permit() == 4


def test_retry_after_opens_the_circuit_at_once() -> None:
    circuit, clock = breaker()
    circuit.failed(retry_after=30)
    assert circuit.permit() == 30
    clock.now += 30
    assert circuit.permit() == 0


def test_a_permit_that_was_not_used_is_somebody_elses() -> None:
    circuit, clock = breaker()
    fail(circuit, 3)
    clock.now += 2
    assert circuit.permit() == 0
    circuit.unused()
    assert circuit.permit() == 0


def test_of_many_threads_one_gets_the_probe() -> None:
    circuit, clock = breaker()
    fail(circuit, 3)
    clock.now += 2
    permits: list[float] = []
    threads = [threading.Thread(target=lambda: permits.append(circuit.permit())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert permits.count(0) == 1

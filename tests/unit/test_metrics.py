import contextlib
import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics
from gateway.metrics import Metrics, Recorder, families


class Collected:
    def __init__(self, totals):
        self._totals = totals

    def collect(self):
        return families(self._totals)


def written(totals):
    """Write the metrics as Prometheus scrapes them and read them again: name and labels -> value."""
    registry = CollectorRegistry()
    registry.register(Collected(totals))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def in_a_child(work):
    """Run `work` in a process of its own that ends as if it were killed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(9)
    os.waitpid(pid, 0)


def test_what_processes_count_is_summed_and_outlives_them():
    all_ = Metrics(["one", "two"])
    for name in ("one", "two", "one"):  # the second "one" goes on where the first ended
        in_a_child(lambda name=name: all_.of(name).add(metrics.OPERATIONS, "CT01", "C-STORE", "0000", amount=2))
    in_a_child(lambda: all_.of("two").add(metrics.OPERATIONS, "CT01", "C-STORE", "A700"))
    found = written(all_.total())
    labels = (("peer", "CT01"), ("service", "C-STORE"))
    assert found["dicom_gateway_operations_total", (*labels, ("status", "0000"))] == 6
    assert found["dicom_gateway_operations_total", (*labels, ("status", "A700"))] == 1


def test_a_process_sums_up_what_was_lent_after_it_was_forked():
    all_ = Metrics(["one"])
    go, theirs = os.pipe()
    answer, ours = os.pipe()

    def look():
        os.read(go, 1)
        os.write(ours, repr(dict(metrics.values(all_.total(), metrics.LISTENING))).encode())

    pid = os.fork()
    if pid == 0:
        try:
            look()
        finally:
            os._exit(9)
    late = all_.lend()
    in_a_child(lambda: late.set(metrics.LISTENING, value=1))
    all_.lend()  # and one that has counted nothing yet
    os.write(theirs, b"x")
    os.waitpid(pid, 0)
    assert os.read(answer, 1000) == b"{(): 1.0}"


def test_what_was_lent_meanwhile_counts_once_however_many_threads_sum_up(monkeypatch):
    all_ = Metrics([])
    late = all_.lend()
    late.set(metrics.LISTENING, value=1)
    all_._recorders.clear()  # as in a process that was forked before
    both = threading.Barrier(2)
    size = os.fstat

    def slowly(descriptor):
        found = size(descriptor)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        return found

    monkeypatch.setattr(os, "fstat", slowly)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: all_.total(), range(2)))
    monkeypatch.undo()
    assert dict(metrics.values(all_.total(), metrics.LISTENING)) == {(): 1}


def test_a_gauge_ends_with_its_process_and_a_counter_does_not():
    all_ = Metrics(["one", "two"])

    def associate():
        all_.of("one").add(metrics.ASSOCIATIONS_OPEN, "CT01")
        all_.of("one").add(metrics.ASSOCIATIONS, "CT01")

    in_a_child(associate)
    all_.of("two").add(metrics.ASSOCIATIONS_OPEN, "CT01")
    assert written(all_.total())["dicom_gateway_associations_open", (("peer", "CT01"),)] == 2
    all_.of("one").end()
    found = written(all_.total())
    assert found["dicom_gateway_associations_open", (("peer", "CT01"),)] == 1
    assert found["dicom_gateway_associations_total", (("peer", "CT01"),)] == 1


def test_a_histogram_counts_each_duration_in_every_bucket_that_holds_it():
    recorder = Recorder()
    for seconds in (0.001, 0.005, 0.3, 1000.0):
        recorder.observe(metrics.OPERATION_SECONDS, "CT01", "C-ECHO", seconds=seconds)
    found = written(recorder.read())
    labels = (("peer", "CT01"), ("service", "C-ECHO"))
    name = "dicom_gateway_operation_duration_seconds"
    at_most = {
        bound: found[f"{name}_bucket", tuple(sorted((*labels, ("le", bound))))]
        for bound in ("0.005", "0.01", "0.25", "0.5", "300.0", "+Inf")
    }
    assert at_most == {"0.005": 2, "0.01": 2, "0.25": 2, "0.5": 3, "300.0": 3, "+Inf": 4}
    assert found[f"{name}_count", labels] == 4
    assert abs(found[f"{name}_sum", labels] - 1000.306) < 1e-9


def test_no_count_is_lost_between_threads():
    recorder = Recorder()

    def count(number):
        for turn in range(1000):
            recorder.add(metrics.REJECTIONS, f"reason {(turn + number) % 50}")

    threads = [threading.Thread(target=count, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        recorder.read()
    for thread in threads:
        thread.join()
    assert sum(value for _, value in metrics.values(recorder.read(), metrics.REJECTIONS)) == 8000


def test_what_finds_no_room_is_counted_as_uncounted():
    recorder = Recorder(mmap.mmap(-1, 512))
    for number in range(100):
        recorder.add(metrics.REJECTIONS, f"reason {number}")
    totals = recorder.read()
    kept = sum(value for _, value in metrics.values(totals, metrics.REJECTIONS))
    assert 0 < kept < 100
    assert dict(metrics.values(totals, metrics.UNCOUNTED)) == {(): 100 - kept}


def test_means_are_by_label_values():
    recorder = Recorder()
    for seconds in (1.0, 2.0):
        recorder.observe(metrics.REQUEST_SECONDS, "main", "STOW-RS", seconds=seconds)
    recorder.observe(metrics.REQUEST_SECONDS, "main", "QIDO-RS", seconds=4.0)
    means = metrics.means(recorder.read(), metrics.REQUEST_SECONDS)
    assert means == {("main", "STOW-RS"): 1.5, ("main", "QIDO-RS"): 4.0}

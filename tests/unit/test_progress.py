"""Sub-operations are counted, instances handed out once, and contexts proposed within their limits."""

import threading

import pytest

from gateway.dimse.destination import MOST_CONTEXTS, proposals
from gateway.dimse.expansion import Expansion, Series, Target
from gateway.dimse.progress import Outcome, Progress

CT, EXPLICIT, IMPLICIT, JPEG = "1.2.3.4", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70"


def targets(count, series="1.2"):
    return [Target("1", series, CT, f"{series}.{number}") for number in range(count)]


def expanded(*pages, whole_series=True):
    expansion = Expansion(pages, whole_series=whole_series)
    expansion.start()
    expansion.completed()
    return expansion


def test_more_sub_operations_than_a_counter_holds_are_counted_and_said_to_be_65535():
    found = targets(70_000)
    progress = Progress(expanded(found))
    for target in found[:66_000]:
        progress.count(Outcome(target, 0x0000))
    assert (progress.completed, progress.remaining) == (66_000, 4_000)
    assert progress.counters(remaining=True)["NumberOfCompletedSuboperations"] == 65_535
    progress.fail_the_rest()
    assert progress.failed == 4_000
    assert progress.failed_instances == [target.sop_instance for target in found[66_000:]]
    assert progress.final().code == 0xB000


@pytest.mark.parametrize(
    ("status", "counted"), [(0x0000, "completed"), (0xB007, "warning"), (0x0107, "warning"), (0xA700, "failed")]
)
def test_a_status_is_counted_as_what_it_is(status, counted):
    progress = Progress(expanded(targets(1)))
    progress.count(Outcome(targets(1)[0], status))
    assert [name for name in ("completed", "warning", "failed") if getattr(progress, name)] == [counted]


def test_an_instance_that_comes_twice_is_one():
    assert expanded(targets(5), targets(7)).total == 7


def test_a_series_is_handed_out_whole_and_what_did_not_come_with_it_singly():
    expansion, streams = expanded(targets(5), targets(2, "1.3")), threading.Semaphore(1)
    assert expansion.take(streams) == Series("1", "1.2")
    claimed = [expansion.claim(Series("1", "1.2"), f"1.2.{number}") for number in (0, 1, 1, 9)]
    assert [target.sop_instance if target else None for target in claimed] == ["1.2.0", "1.2.1", None, None]
    assert [expansion.take(streams), expansion.take(streams)] == targets(2, "1.3")
    expansion.finished(Series("1", "1.2"), streams)
    assert [expansion.take(streams) for _ in range(4)] == [*targets(5)[2:], None]
    assert streams.acquire(blocking=False)


def test_series_whose_instances_are_listed_in_turn_are_handed_out_whole():
    first, second = targets(3), targets(3, "1.3")
    expansion = expanded([one for pair in zip(first, second, strict=True) for one in pair])
    assert [expansion.take(threading.Semaphore(2)) for _ in range(2)] == [Series("1", "1.2"), Series("1", "1.3")]


def test_without_a_free_stream_a_series_is_handed_out_singly():
    expansion = expanded(targets(3))
    assert [expansion.take(threading.Semaphore(0)) for _ in range(4)] == [*targets(3), None]


def test_what_ended_the_expansion_is_raised():
    def pages():
        yield targets(2)
        raise ValueError("no more")

    expansion = Expansion(pages(), whole_series=True)
    expansion.start()
    with pytest.raises(ValueError, match="no more"):
        expansion.completed()
    assert expansion.take(threading.Semaphore(1)) is None


def test_the_needed_context_comes_first_and_each_class_has_the_syntaxes_seen_in_it_and_the_native_ones():
    seen = [("1.1", JPEG), ("1.2", EXPLICIT)]
    assert proposals(("1.1", JPEG), seen, ["1.1", "1.2", "1.3"]) == [
        *(("1.1", JPEG), ("1.1", EXPLICIT), ("1.1", IMPLICIT)),
        *(("1.3", EXPLICIT), ("1.3", IMPLICIT), ("1.3", JPEG)),
        *(("1.2", EXPLICIT), ("1.2", IMPLICIT)),
    ]


@pytest.mark.parametrize("at", [0, 70, 199])
def test_never_more_contexts_than_an_association_has_and_the_nearest_classes_among_them(at):
    classes = [f"1.{number}" for number in range(200)]
    proposed = proposals((classes[at], EXPLICIT), [(classes[at], EXPLICIT)], classes)
    assert len(proposed) == len(set(proposed)) == MOST_CONTEXTS
    assert proposed[0] == (classes[at], EXPLICIT)
    chosen = {uid for uid, _ in proposed}
    assert chosen >= set(classes[max(0, at - 31) : at + 32])

"""Instances and series are handed out early, whole, apart or singly, each instance once."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from gateway.dimse.expansion import Expansion, Series, Target

STUDY = Series("1")
FIRST, SECOND, THIRD = (Series("1", f"1.{number}") for number in (1, 2, 3))


def of(series: Series, count: int, *, recent: bool = False) -> list[Target]:
    return [Target("1", series.series, "1.9", f"{series.series}.{number}", recent=recent) for number in range(count)]


class Searching:
    """An expansion whose pages come when a test says so, but for one `at_once`."""

    def __init__(self, *pages: Sequence[Target], early: Series, at_once: Sequence[Target] = ()) -> None:
        self._pages, self._at_once, self._may = pages, at_once, threading.Event()
        self.streams = threading.Semaphore(3)
        self.expansion = Expansion(self._read(), whole_series=True, early=early)
        self.expansion.start()

    def _read(self) -> Iterator[Sequence[Target]]:
        yield self._at_once
        assert self._may.wait(60)
        yield from self._pages

    def go_on(self) -> None:
        self._may.set()
        self.expansion.completed()

    def take(self) -> Target | Series | None:
        return self.expansion.take(self.streams)

    def claim(self, unit: Series, *uids: str) -> list[str]:
        targets = [self.expansion.claim(unit, uid) for uid in uids]
        return [target.sop_instance for target in targets if target is not None]


@pytest.mark.parametrize("early", [STUDY, FIRST])
def test_what_is_retrieved_early_is_handed_out_before_any_page_has_come(early: Series) -> None:
    searching = Searching(of(FIRST, 3), early=early)
    assert searching.take() == early
    searching.go_on()
    assert searching.claim(early, "1.1.0", "1.1.2", "1.1.9") == ["1.1.0", "1.1.2"]
    searching.expansion.finished(early, searching.streams)
    assert [searching.take(), searching.take()] == [of(FIRST, 3)[1], None]


def test_without_a_free_stream_nothing_is_retrieved_early() -> None:
    searching = Searching(of(FIRST, 3), early=STUDY)
    searching.streams = threading.Semaphore(0)
    searching.go_on()
    assert [searching.take() for _ in range(4)] == [*of(FIRST, 3), None]


def test_the_series_that_a_study_did_not_begin_to_bring_are_had_apart_and_there_it_ends() -> None:
    searching = Searching([*of(FIRST, 3), *of(SECOND, 3), *of(THIRD, 2)], early=STUDY)
    assert searching.take() == STUDY
    searching.go_on()
    assert searching.claim(STUDY, "1.1.0") == ["1.1.0"]
    assert searching.take() == SECOND
    assert searching.claim(STUDY, "1.1.1", "1.3.0", "1.2.0") == ["1.1.1", "1.3.0"]
    assert searching.expansion.is_passed(STUDY, "1.2.0")
    assert searching.claim(SECOND, "1.2.0", "1.2.1", "1.2.2") == ["1.2.0", "1.2.1", "1.2.2"]
    assert not searching.expansion.is_passed(SECOND, "1.2.0")
    searching.expansion.finished(STUDY, searching.streams)
    searching.expansion.finished(SECOND, searching.streams)
    assert [searching.take() for _ in range(3)] == [of(FIRST, 3)[2], of(THIRD, 2)[1], None]


def test_what_was_held_for_a_study_before_the_last_page_is_had_apart_after_it() -> None:
    searching = Searching(at_once=of(FIRST, 3), early=STUDY)
    assert searching.take() == STUDY
    taken: list[Target | Series | None] = []
    waiting = threading.Thread(target=lambda: taken.append(searching.take()))
    waiting.start()
    waiting.join(0.2)  # so that it is held; were it not yet, the answer is the same
    searching.go_on()
    waiting.join(60)
    assert taken == [FIRST]


def test_what_is_here_is_neither_held_for_an_answer_nor_taken_from_it() -> None:
    searching = Searching([*of(FIRST, 1, recent=True), *of(SECOND, 3)], early=STUDY)
    assert searching.take() == STUDY
    searching.go_on()
    assert searching.claim(STUDY, "1.1.0") == []
    assert searching.take() == of(FIRST, 1, recent=True)[0]


def test_of_a_study_that_is_not_wanted_nothing_is_waited_for() -> None:
    searching = Searching(early=STUDY)
    assert searching.take() == STUDY
    searching.go_on()
    assert searching.claim(STUDY, "1.1.0") == []
    assert searching.expansion.is_passed(STUDY, "1.1.0")


def test_who_left_waits_for_nothing_that_comes() -> None:
    searching = Searching(of(FIRST, 3), early=STUDY)
    assert searching.take() == STUDY
    searching.expansion.leave()
    assert searching.claim(STUDY, "1.1.0") == []
    assert searching.expansion.is_passed(STUDY, "1.1.0")
    searching.go_on()

"""However many refusals there are, few are told, and all are counted."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from isthmus.node.refusals import INTERVAL, MAX_SOURCES, RefusalDigest


def test_the_first_is_told_at_once_and_the_others_each_second():
    digest: RefusalDigest[str] = RefusalDigest()
    assert digest.next_timeout() is None
    assert digest.add("here", "first", 10.0) == [("first", 1)]
    assert digest.add("here", "second", 10.1) == []
    assert digest.add("there", "other", 10.2) == [("other", 1)]
    assert digest.add("here", "third", 10.9) == []
    assert digest.next_timeout() == 11.0
    assert digest.handle_timeout(10.9) == []
    assert digest.handle_timeout(11.0) == [("third", 2)]
    assert digest.next_timeout() == 11.2
    assert digest.handle_timeout(12.0) == []
    assert digest.next_timeout() is None
    assert digest.add("here", "again", 12.1) == [("again", 1)]


def test_a_crowd_of_sources_is_told_together():
    digest: RefusalDigest[str] = RefusalDigest()
    told = [digest.add(number, str(number), 0.0) for number in range(10 * MAX_SOURCES)]
    assert sum(map(len, told)) == MAX_SOURCES + 1
    (rest,) = digest.handle_timeout(INTERVAL)
    assert rest == (str(10 * MAX_SOURCES - 1), 9 * MAX_SOURCES - 1)


@given(st.lists(st.tuples(st.integers(0, 60), st.floats(0, 0.7)), max_size=200))
def test_all_are_counted_and_none_is_told_too_often(steps):
    digest: RefusalDigest[int] = RefusalDigest()
    added, told, times = Counter(), Counter(), []
    now = 0.0

    def tell(found, at):
        for source, count in found:
            told["all"] += count
            times.append((source, at))

    for source, pause in steps:
        until = now + pause
        while (due := digest.next_timeout()) is not None and due <= until:
            tell(digest.handle_timeout(due), due)
        now = until
        added["all"] += 1
        tell(digest.add(source, source, now), now)
    while (due := digest.next_timeout()) is not None:
        tell(digest.handle_timeout(due), due)
    assert told == added
    for second in range(int(now) + 3):
        assert sum(second <= at < second + 1 for _, at in times) <= 2 * (MAX_SOURCES + 1)

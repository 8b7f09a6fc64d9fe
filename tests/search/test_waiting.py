"""Workers that wait for others leave the storage its time, and still stop at once."""

from statistics import mean

import pytest

from sculpt.search.workers.worker import pause


@pytest.mark.parametrize(("waited", "seconds"), [(0, 1), (5, 1), (40, 4), (1000, 15)])
def test_a_worker_looks_the_less_often_the_longer_it_has_waited(waited, seconds):
    pauses = [pause(waited) for _ in range(500)]
    assert seconds / 2 <= min(pauses) <= max(pauses) <= seconds * 1.5
    assert mean(pauses) == pytest.approx(seconds, rel=0.1)
    assert len(set(pauses)) > 400  # or a thousand workers would look at one moment

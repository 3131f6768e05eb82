"""How long a run is waited for."""

from worker.demo.patience import Patience


class Clock:
    """Shows the time that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_run_that_moves_is_waited_for() -> None:
    """Each change begins the wait anew, however long the whole takes."""
    clock = Clock()
    patience = Patience[int](10, clock=clock)

    for state in range(100):
        clock.now += 9
        assert not patience.is_over(state)


def test_a_run_that_stands_still_is_given_up() -> None:
    """The same state for longer than the limit ends the patience, and only that."""
    clock = Clock()
    patience = Patience[str](10, clock=clock)

    seen = []
    for clock.now in (0, 10, 10.1, 20.3):
        seen.append(patience.is_over("the same"))

    assert seen == [False, False, True, True]
    assert not patience.is_over("another")

"""Watchers by which tests end a run at a known moment."""

from sculpt.record import Epoch
from sculpt.search.progress import Watcher


class Interrupt(Watcher):
    """Presses Ctrl-C after some epochs, or ends the run there in another way."""

    def __init__(self, epochs: int = 1, by: type[BaseException] = KeyboardInterrupt):
        self.left, self.by = epochs, by

    def epoch_finished(self, epoch: Epoch) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.by

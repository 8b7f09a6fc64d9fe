"""The events of a running study, and a live view of them in the terminal."""

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from sculpt.config import Params, describe_parameters
from sculpt.record import Epoch
from sculpt.units import ERROR, Metric


class Watcher:
    """Receives the events of a run; this one ignores them all."""

    metric: Metric = ERROR
    """What the errors of the study are."""

    def run_started(self, total: int, done: int) -> None:
        """Trials in all, and how many are finished already."""

    def trial_started(self, label: int | str, params: Params, epochs: int | None) -> None:
        """A trial begins: a candidate's number, "base" or an opponent's label; `epochs` over all
        its seeds, None where only its end will be told."""

    def epoch_finished(self, epoch: Epoch) -> None:
        """The current trial finished an epoch."""

    def trial_finished(
        self, label: int | str, val_error: float | None, problem: str | None
    ) -> None:
        """A trial ended with a validation error, or with a problem."""

    def waiting(self, running: int) -> None:
        """Nothing is left to start; trials are still running elsewhere, or their worker died."""

    def from_worker(self, number: int) -> None:
        """The next events are of this one of several workers; 0 unless this is called."""

    def worker_lost(self, problem: str) -> None:
        """The worker died, and with it the trial that it was running."""

    def message(self, text: str) -> None:
        """A message for the user."""

    def opponents_started(self, trials: int) -> None:
        """This many opponents are left to run beside the trials of the search."""

    def confirmation_started(self, trials: int) -> None:
        """The search is over; this many trials are left to confirm its results."""

    def run_finished(self) -> None:
        """The run is over, whatever the reason."""


class LiveView(Watcher):
    """Progress bars on a terminal, one per running trial; a line per finished trial elsewhere.

    Attributes:
        finished: Number of trials that ended in view, whatever their end.
    """

    def __init__(self, console: Console):
        self.finished = 0
        self._console = console
        self._bars = Progress(
            SpinnerColumn("dots" if console.encoding.startswith("utf") else "line"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._study = self._bars.add_task("study", total=0, note="", visible=False)
        self._worker = 0
        self._trials: dict[int, TaskID] = {}  # the row of each worker's current trial
        self._starts: dict[int, float] = {}
        self._best: tuple[float, str] | None = None
        self._first_start, self._finished_here = time.monotonic(), 0
        self._warned = self._opposing = self._confirming = False

    def run_started(self, total: int, done: int) -> None:
        self._bars.start()
        self._bars.update(self._study, total=total, completed=done, visible=True)
        self._console.print(f"{total} trials, {done} of them finished", highlight=False)

    def trial_started(self, label: int | str, params: Params, epochs: int | None) -> None:
        self._starts[self._worker] = time.monotonic()
        if self._worker not in self._trials:
            self._trials[self._worker] = self._bars.add_task("", total=0, note="", visible=False)
        self._bars.reset(
            self._trials[self._worker],
            description=f"{_name(label)} {describe_parameters(params)}".rstrip(),
            total=epochs or 1,
            visible=True,
            note="pruning" if params and epochs else "",
        )

    def epoch_finished(self, epoch: Epoch) -> None:
        found = self.metric.short(epoch.val_error)
        note = f"{epoch.images_per_second:,.0f} images/s, val {self.metric.name} {found}"
        self._bars.update(self._trials[self._worker], advance=1, note=note)
        self._describe_study()

    def trial_finished(
        self, label: int | str, val_error: float | None, problem: str | None
    ) -> None:
        self.finished += 1
        self._finished_here += 1
        if val_error is not None and (self._best is None or val_error < self._best[0]):
            self._best = (val_error, _name(label))
        seconds = time.monotonic() - self._starts[self._worker]
        result = problem
        if val_error is not None:
            result = f"val {self.metric.name} {self.metric.short(val_error)}"
        row = self._trials[self._worker]
        self.message(f"{self._bars.tasks[row].description}: {result} ({seconds:.1f} s)")
        self._bars.update(row, visible=False)
        self._bars.update(self._study, advance=1)
        self._describe_study()

    def waiting(self, running: int) -> None:
        if not self._warned:
            self._warned = True
            self.message(
                f"waiting for {running} trial(s) that another worker runs, or that are taken over "
                "when their worker has been silent for search.grace_seconds"
            )

    def from_worker(self, number: int) -> None:
        self._worker = number

    def worker_lost(self, problem: str) -> None:
        row = self._trials.get(self._worker)
        if row is not None and self._bars.tasks[row].visible:
            self._bars.update(row, visible=False)
            problem += f"; {self._bars.tasks[row].description} is run again"
        self.message(problem)

    def message(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def opponents_started(self, trials: int) -> None:
        if trials and not self._opposing:  # each of several workers says so
            self._opposing = True
            total = self._bars.tasks[self._study].total or 0
            self._bars.update(self._study, total=total + trials)
            self.message(f"{trials} opponents beside them")

    def confirmation_started(self, trials: int) -> None:
        if trials and not self._confirming:  # each of several workers says so
            self._confirming = True
            self._bars.update(self._study, total=trials, completed=0)
            self.message(f"{trials} trials to confirm the best")
            self._first_start, self._finished_here = time.monotonic(), 0

    def run_finished(self) -> None:
        self._bars.stop()

    def _describe_study(self) -> None:
        notes = []
        if self._best is not None:
            notes.append(f"best {self.metric.short(self._best[0])} ({self._best[1]})")
        if self._finished_here:
            study = self._bars.tasks[self._study]
            pace = (time.monotonic() - self._first_start) / self._finished_here
            left = pace * ((study.total or 0) - study.completed)
            notes.append(f"about {left / 60:.0f} min left")
        self._bars.update(self._study, note=", ".join(notes))


def _name(label: int | str) -> str:
    return label if isinstance(label, str) else f"trial {label}"

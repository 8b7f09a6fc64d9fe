"""Seconds of every phase of one network's trial, measured on a little of what a trial does."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

from torch import Tensor, nn

from sculpt.benchmark.opponent import Opponent
from sculpt.benchmark.race import images_trained_on, race
from sculpt.config import Study
from sculpt.data import ImageSet, Splits
from sculpt.job import Job, Sculpted, candidate_budget, resolve_budget
from sculpt.measuring import Measuring
from sculpt.record import Role
from sculpt.search.preparation import load_scoring_images
from sculpt.training.evaluation import evaluate
from sculpt.training.loop import evaluations
from sculpt.training.precision import resolve_precision
from sculpt.trial import sculpt_network

SCORED = 512
"""Images that are scored on to measure scoring; its cost grows in proportion to them."""

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class WatchedImages(ImageSet):
    """Images that note whether a criterion looked at them; some look at none."""

    passes: list[int] = field(default_factory=list)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once, as `ImageSet.batches` does, and note it."""
        self.passes.append(len(self))
        return ImageSet.batches(self, batch_size)


@dataclass(frozen=True)
class Effort:
    """How much is spent on measuring."""

    repeats: int = 5
    """Turns, of which the median counts."""
    seconds: float = 2.0
    """What one measured epoch should take, about."""


@dataclass(frozen=True)
class Stopwatch:
    """Measures networks of one study."""

    config: Study
    splits: Splits
    effort: Effort
    opponent: Opponent | None

    def measure(self, role: Role, params: dict[str, Any]) -> tuple[list[Row], float]:
        """Return a network's rows, and the seconds that a trial of it takes with one seed."""
        study = self.config.with_parameters(params)
        recipe = study.training
        sculpted, phases, rate = self._sculpt(study, role)

        def row(who: str, phase: str, rate: float | None, seconds: float) -> Row:
            return {
                "params": params,
                "role": who,
                "phase": phase,
                "images_per_second": rate,
                "seconds": seconds,
            }

        rows: list[Row] = []
        if "score" in phases:
            rows.append(row(role, "score", rate, phases["score"]))
        if "repair" in phases:
            rows.append(row(role, "repair", None, phases["repair"]))

        rates = race(
            sculpted.model,
            sculpted.masks,
            self.splits,
            recipe,
            repeats=self.effort.repeats,
            seconds=self.effort.seconds,
            opponent=self.opponent,
        )
        trained, trained_rate = images_trained_on(self.splits, recipe), median(rates.sculpt)
        training = trained / trained_rate
        rows.append(row(role, "train", trained_rate, training))

        precision = resolve_precision(recipe.precision, self.splits.train.device)
        evaluation_rate = self._evaluation_rate(rates.trained, precision, trained_rate)
        read = len(self.splits.validation)
        if recipe.protocol == "lowest_test":
            read += len(self.splits.test)
        evaluation = evaluations(recipe) * read / evaluation_rate
        rows.append(row(role, "evaluate", evaluation_rate, evaluation))

        if rates.standard:
            standard = median(rates.standard)
            compared = row("standard_loop", "train", standard, trained / standard)
            rows.append(compared | {"ratio": rates.ratio})
        # The phases without a row: building, initialising, masking, compacting, reading signals.
        prepared = sum(phases.values()) + rates.seconds_to_compact
        return rows, prepared + training + evaluation

    def _sculpt(self, study: Study, role: Role) -> tuple[Sculpted, dict[str, float], float | None]:
        """Return the network, seconds of each phase of a trial before training, scoring's rate.

        The rate is in images per second, None where no images are scored on.
        """
        spec = self.splits.spec
        images = load_scoring_images(study, self.splits)
        watched = WatchedImages(images.images, images.labels, images.mean, images.std)
        wanted = min(study.pruning.images or len(images), len(images))
        scored = min(SCORED, wanted)
        short = study.model_copy(
            update={"pruning": study.pruning.model_copy(update={"images": scored})}
        )
        budget = resolve_budget(self.config, spec)
        if role == "candidate":
            budget = candidate_budget(self.config, study, spec)
        job = Job("bench", short, role, {}, budget, [study.search.seed])
        taken: list[dict[str, float]] = []
        start = perf_counter()
        # More than once where it is quick, because the first time warms up.
        while not taken or (
            len(taken) < self.effort.repeats and perf_counter() - start < self.effort.seconds
        ):
            measuring = Measuring(job, self.splits, study.search.seed)
            sculpted = sculpt_network(job, self.splits, watched, measuring)
            taken.append(sculpted.record.seconds)
        phases = {phase: median(seconds[phase] for seconds in taken) for phase in taken[0]}
        if not watched.passes:
            return sculpted, phases, None
        rate = scored / phases["score"]
        return sculpted, phases | {"score": wanted / rate}, rate

    def _evaluation_rate(self, model: nn.Module, precision: str, trained_rate: float) -> float:
        """Return images per second in inference mode."""
        # A forward pass is about a third of a training step.
        worth = max(1, round(3 * trained_rate * self.effort.seconds))
        images = self.splits.validation.sample(worth, seed=0)
        evaluate(model, images, precision=precision)  # warms up
        rates = []
        for _ in range(self.effort.repeats):
            start = perf_counter()
            evaluate(model, images, precision=precision)  # waits for the device
            rates.append(len(images) / (perf_counter() - start))
        return median(rates)

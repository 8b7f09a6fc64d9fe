"""One trial, as the method reads: build, initialise, score, mask, repair, compact, train, measure.

Lee et al., *A Signal Propagation Perspective for Pruning Neural Networks at Initialization*,
ICLR 2020. Signal propagation is read after initialisation, after pruning and after repair.
"""

from functools import partial

from sculpt.arithmetic import drawn_by, float32_products, sound_convolutions
from sculpt.compaction import compact_where_it_pays
from sculpt.data import ImageSet, Splits
from sculpt.initializers import initialize
from sculpt.measuring import FEW, Measuring
from sculpt.pruning.masks import Scores, apply_masks, dense_masks
from sculpt.repair.isometry import repair_isometry
from sculpt.run_folder import FIRST_FILE, NOWHERE, Hook, RunFolder
from sculpt.training.loop import train
from sculpt.training.memory import within_memory
from sculpt.trial_setup import Outcome, Sculpted, TrialSetup


def run_seed(
    setup: TrialSetup, splits: Splits, scoring: ImageSet, seed: int, folder: RunFolder = NOWHERE
) -> Outcome:
    """Prune and train one network of a trial.

    Args:
        setup: What the trial trains.
        splits: On the device to train on.
        scoring: Images to score on, `splits.train` unless the study names others.
        seed: One of the setup's.
        folder: Where the run is written down and goes on from, and who is told of it.

    Raises:
        BudgetError: the network is too small for the budget.
        DryRankingError: the criterion ranks too few weights.
        NumericsError: a score is not finite, or the base diverged.
        DeviceMemoryError: the device is too small for the network.
    """
    device, recipe, plan = splits.train.device, setup.study.training, None
    measuring = Measuring(setup, splits, seed)
    # Scores and isometry are computed in float32 proper, which CUDA's convolutions are not.
    with within_memory(device), float32_products("float32", device), drawn_by(seed):
        sculpted = folder.sculpted(
            partial(setup.build, splits),
            partial(sculpt_network, setup, splits, scoring, measuring, **folder.hooks(FIRST_FILE)),
        )
        model, masks = sculpted.model, sculpted.masks
        compaction, budget = None, setup.moving_budget(model, masks)
        if recipe.compact and not setup.is_dense and budget is None:
            with measuring.clock("compact"):
                compaction, plan = compact_where_it_pays(model, masks, splits.train.inputs(FEW))
        trainee = (compaction.model, compaction.masks) if compaction else (model, masks)
        with measuring.clock("train"):
            trained = train(*trainee, splits, recipe, seed=seed, budget=budget, **folder.hooks())
        if compaction:
            compaction.restore()
        masks = masks if compaction else trained.masks
        return Outcome(model, masks, measuring.trained(sculpted, masks, trained, plan))


def sculpt_network(
    setup: TrialSetup, splits: Splits, scoring: ImageSet, measuring: Measuring, **hooks: Hook
) -> Sculpted:
    """Make a network sparse: build, initialise, score, mask, redraw, repair; see `run_seed`."""
    pruning, seed, clock = setup.study.pruning, measuring.seed, measuring.clock
    scores: Scores = {}
    with clock("build"):
        masks = dense_masks(model := setup.build(splits))
    with clock("initialise"):
        initialize(model, setup.initializer.name, seed=seed, **setup.initializer.options)
    measuring.read("initial", model, masks)
    if setup.trains_first:
        with clock("train_first"):
            first = train(model, masks, splits, setup.study.training, seed=seed, **hooks)
        measuring.trained_first(first)
    if setup.is_pruned:
        task = setup.pruning_task(model, scoring, seed)
        with clock("score"), sound_convolutions(model):
            task, scores = task.scored(setup.criterion(model))
        with clock("mask"):
            masks = task.select(scores)
            setup.redraw(model, seed)
            apply_masks(model, masks)
        measuring.read("pruned", model, masks)
        if method := pruning.repair_method:
            with clock("repair"):
                measuring.repairs = repair_isometry(model, masks, method=method)
            measuring.read("repaired", model, masks)
    return Sculpted(model, masks, scores, measuring.sculpted(model, masks, scores))

"""Pruning of any network in one call."""

import math
import warnings
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.arithmetic import float32_products, sound_convolutions
from sculpt.diagnostics.arguments import Inputs, material_weights, shape_of
from sculpt.diagnostics.cost import check_counted, measure_cost, remade_weights
from sculpt.diagnostics.layers import (
    by_output,
    embeddings,
    embeddings_on_request,
    from_outputs,
    kept_weights,
    layer_groups,
    weighted_layers,
)
from sculpt.errors import BudgetError, InputError, NumericsError, SculptWarning
from sculpt.graph.copies import run_eagerly
from sculpt.pruning.batches import read_batches
from sculpt.pruning.layer_budgets import LayerBudgets
from sculpt.pruning.macs import check_macs
from sculpt.pruning.mask_rule import MaskRule, Scope, count_nonzero
from sculpt.pruning.masks import (
    MOST_NAMES,
    Counting,
    Masks,
    Scores,
    apply_masks,
    collapsed_layers,
    count_kept,
    count_parameters,
    matching,
    prunable_budget,
    prunable_parameters,
)
from sculpt.pruning.patterns import pattern_of
from sculpt.pruning.task import Loss, PruningTask
from sculpt.registry import CRITERIA, check_options

NEVER_PRUNED = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.PReLU,
)
"""Norms, and slopes of an activation: nobody expects those to be pruned."""


def prune(
    model: nn.Module,
    budget: int | None = None,
    *,
    macs: int | None = None,
    criterion: str = "connection_sensitivity",
    inputs: Inputs | Iterable[Any] | None = None,
    labels: Tensor | None = None,
    loss: Loss | None = None,
    input_shape: tuple[int, ...] | None = None,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    counting: Counting = "paper",
    scope: Scope = "global",
    granularity: str = "weight",
    mac_exponent: float = 0.0,
    effective: bool = False,
    layer_budgets: LayerBudgets | None = None,
    batch_size: int = 250,
    seed: int = 0,
    **options: Any,
) -> Masks:
    """Prune a network to a budget, in place, by the scores of a criterion.

    Args:
        model: Any module with conv or linear layers, at the weights to be scored; see
            `sculpt.initialize` for drawing them.
        budget: Parameters to keep under the counting rule; met exactly, except as said under
            `granularity` and `effective`. With `macs` the most to keep, and by default all.
        macs: Most multiply-accumulates on kept weights for one input (needs inputs or
            input_shape). Met from below: by as many weights of the ranking as fit, and after these
            by the best of those that are cheap enough.
        criterion: A registered name.
        inputs: Normalised inputs for the criteria that look at data: one float tensor (N, ...)
            where the model is (whole numbers for embeddings), a tuple of the network's arguments,
            or a dict of its named ones, with `labels` in it or not. Or an iterable of batches, such
            as a DataLoader: each is inputs, a pair (inputs, labels) or a dict, and is moved to the
            model. Every pass over it must show the same ones.
        labels: Classes from 0, whole numbers (N,), or (N, ...) with one for each position; only
            for criteria that look at labels.
        loss: Called with the model and a batch, in place of cross-entropy to a criterion's
            `targets`; returns one number. A batch is what the iterable gives; of inputs in one
            piece, a part of them, or a pair (inputs, labels) if there are labels.
        input_shape: Shape of one input; by default that of `inputs`. Some criteria need it instead
            of data.
        include, exclude: Patterns of parameter names, as of files (`head.*`). Of the weights and
            biases of conv, linear and attention layers, those are pruned that match one of
            `include` and none of `exclude`; others stay whole, as if they were frozen, but count
            under `total`. The weight of an embedding is pruned, too, if `include` has its whole
            name: `["*", "tokens.weight"]`; no pattern with wildcards means it. Then it is scored
            weight by weight, and whatever follows paths (SynFlow, `npb`, `effective`,
            `mac_exponent`, granularity `channel`) refuses it: paths begin behind embeddings.
        counting: `paper`: trainable weights and biases of conv and linear layers count, a shared
            one once, and so do attention's projections and the embeddings that `include` names.
            `total`: everything trainable counts. Frozen parameters count under neither. Only the
            former are ever pruned: norms, other embeddings and recurrent layers stay, and a warning
            names them (but for norms).
        scope: `global` ranks the whole network, `layer` each layer for itself at one density.
        granularity: `weight`; `kernel` (whole k×k kernels); `channel` (whole channels in all the
            layers that write or read them, which leaves dense layers of uneven width: `compact`
            stores what the budget says). Groups meet the budget as closely as possible and never
            exceed it; a warning says the rest, and where channels could not be followed. Or a
            pattern N:M, such as `2:4` (at most 2 of every 4 consecutive inputs of an output, at
            each position of a kernel): the budget is met exactly, and may be no more than the
            pattern has room for. Biases, and layers of fewer than M inputs, are spared the pattern.
        mac_exponent: p ≥ 0: scores are divided by (output height × width)^p before they are ranked.
        effective: Replace kept weights that lie on no path from input to output by others that do;
            a warning says if there are too few of those.
        layer_budgets: `erk` (Evci et al. 2020) or `balanced` (the same number of weights in each
            layer, as far as it has them) fix how many weights each layer keeps, and scores choose
            within layers; in place of scope, mac_exponent and effective, and not for channels.
            Biases go first: they stay only where all weights do.
        batch_size: Inputs per scoring batch.
        seed: For criteria that draw.
        options: The criterion's own, for example `targets="gt"`.

    Returns:
        Bool masks, True = kept, of all conv and linear layers, and of embeddings that `include`
        names, keyed by parameter name. The pruned weights of the model are zero;
        `sculpt.attach_masks(optimizer, model, masks)` keeps them so while it trains.

    Raises:
        UnknownNameError: no criterion has this name.
        BudgetError: the budget is no whole number, or more than the network has weights that are
            not 0, or than a pattern has room for.
        DryRankingError: too few scores are non-zero.
        NumericsError: a weight, an input or a score is not finite.
        InputError: an argument is of another kind than above, or a needed one is missing; the
            weights are not there to be changed, or computed from others (weight_norm, ...); or the
            network does not return logits.

    Warns:
        SculptWarning: parameters are left out, a layer has lost all its weights, the budget could
            not be spent, or channels could not be followed from layer to layer.
    """
    if budget is None and macs is None:
        raise BudgetError(
            "a budget must be a whole number, the parameters to keep, but got None; give one, or "
            "macs="
        )
    limit = None if macs is None else _whole(macs, "macs", "multiply-accumulates")
    for name, given, kind, least, what in (
        ("mac_exponent", mac_exponent, Real, 0, "a number of 0 or more"),
        ("batch_size", batch_size, Integral, 1, "a whole number of 1 or more"),
        ("seed", seed, Integral, -math.inf, "a whole number"),
    ):
        if not isinstance(given, kind) or not given >= least:
            raise InputError(f"{name} must be {what}, but got {given!r}")
    if input_shape is not None and not isinstance(input_shape, tuple | list):
        raise InputError(
            "input_shape must be whole numbers, such as (3, 32, 32), the shape of one input, but "
            f"got {input_shape!r}"
        )
    if loss is not None and not callable(loss):
        raise InputError(
            f"loss must be called with the model and a batch, but got {loss!r}; give a function"
        )
    check_options(criterion, CRITERIA.get(criterion), options)
    if loss is not None and "targets" in options:
        raise InputError(
            "there must be one loss, but got loss= and the targets of another; leave one out"
        )
    rule = MaskRule(scope, granularity, mac_exponent, effective, layer_budgets)
    with embeddings_on_request(model, include), _sparing(model, include, exclude) as left_whole:
        weights = material_weights(model)
        if faulty := [name for name, weight in weights.items() if not weight.isfinite().all()]:
            raise NumericsError(
                f"weights must be finite to be pruned, but some of {faulty[0]} are not; check the "
                "initialisation"
            )
        spared = sum(p.numel() for p in left_whole.values()) if counting == "total" else 0
        by_macs = budget is None
        if by_macs:
            budget = count_parameters(model, counting) + spared
        budget = _whole(budget, "a budget", "parameters")
        kept = prunable_budget(model, budget, counting, spared=spared)
        pattern = pattern_of(granularity)
        if pattern and limit is None:
            pattern.check_budget(model, kept)
        left = _not_pruned(model)
        if kept > (there := kept_weights(left)) and limit is None:
            raise BudgetError(
                f"a budget must not exceed the weights that are there, but it keeps {kept} of "
                f"{there}: the others are exactly 0, pruned before or drawn so; choose a smaller "
                "budget, or draw the weights anew with sculpt.initialize"
            )
        device = next(iter(weights.values())).device
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            float32_products("float32", device),
            sound_convolutions(model),
            run_eagerly(model),
        ):
            batches, example = read_batches(
                model, inputs, labels, batch_size, whole=loss is not None
            )
            shape = (
                shape_of(example) if input_shape is None and example is not None else input_shape
            )
            generator = torch.Generator().manual_seed(seed)
            task = PruningTask(model, kept, batches, generator, shape, rule, loss, macs=limit)

            def score(task: PruningTask) -> Scores:
                scores = CRITERIA.get(criterion)(model, task, **options)
                return _without_pruned(scores, left, task.kept, criterion)

            if limit is not None and by_macs:
                cost = measure_cost(model, task.required_shape("a budget of MACs"))
                check_counted(model, cost)
                check_macs(model, cost, limit, pattern)
            task, scores = task.scored(score)
            masks = task.select(scores)
            apply_masks(model, masks)
            remade: list[str] = []
            if isinstance(shape, tuple) and any(
                map(_has_own_forward, weighted_layers(model).values())
            ):
                with suppress(Exception):  # what cannot be traced is pruned all the same
                    remade = remade_weights(model, measure_cost(model, shape))
        unspent = budget - spared - count_kept(model, masks, counting)
    if others := _left_out(model, {*left_whole, *(embeddings(model).keys() & masks.keys())}):
        warnings.warn(others, SculptWarning, stacklevel=2)
    if remade:
        warnings.warn(
            f"layers should compute with their weights as they are, but those of "
            f"{', '.join(remade[:MOST_NAMES])} make others of them, in which pruned ones need not "
            "be zero; leave them out (exclude=)",
            SculptWarning,
            stacklevel=2,
        )
    if collapsed := collapsed_layers(masks):
        warnings.warn(
            f"every layer should keep some weights, but nothing is left of {', '.join(collapsed)}; "
            "use another initializer or criterion, scope='layer', or a larger budget",
            SculptWarning,
            stacklevel=2,
        )
    if unspent and limit is None:
        warnings.warn(
            f"{unspent} of {budget} parameters could not be spent with granularity "
            f"{granularity!r} and effective={effective}",
            SculptWarning,
            stacklevel=2,
        )
    return masks


def _whole(budget: object, what: str, unit: str) -> int:
    """Return a budget as an int, if it is a whole number."""
    if not isinstance(budget, Integral) or isinstance(budget, bool):
        raise BudgetError(
            f"{what} must be a whole number, the {unit} to keep, but got "
            f"{budget!r} ({type(budget).__name__}); for a share, multiply it by the network's size"
        )
    return int(budget)


def _has_own_forward(layer: nn.Module) -> bool:
    """Tell whether a layer is of a class that computes in a way of its own."""
    return not type(layer).forward.__module__.startswith("torch.nn.modules.")


def _not_pruned(model: nn.Module) -> Masks:
    """Find the prunable weights that were not pruned before, which left them exactly 0.

    Some are drawn as 0: biases, a whole layer, or a place of all of its kernels (as by `ldi`).
    """
    layers, lookups, found = weighted_layers(model), embeddings(model), {}
    for name, parameter in prunable_parameters(model).items():
        found[name] = torch.ones_like(parameter, dtype=torch.bool)
        if layer := layers.get(name):
            groups = torch.stack(
                by_output(layer, parameter.detach() != 0).chunk(layer_groups(layer))
            )
            drawn = groups | ~groups.any(2, keepdim=True).any(1, keepdim=True)
            found[name] = from_outputs(layer, drawn.flatten(0, 1))
        elif embedding := lookups.get(name):
            found[name] = parameter.detach() != 0
            if embedding.padding_idx is not None:  # a row that is drawn as 0
                found[name][embedding.padding_idx] = True
    return found


def _without_pruned(scores: Scores, left: Masks, kept: int, criterion: str) -> Scores:
    """Take the scores of what is 0, and no weight to keep, whatever a criterion scores it."""
    ranked = type(scores)({name: score.where(left[name], 0) for name, score in scores.items()})
    if count_nonzero(scores) >= kept > count_nonzero(ranked):
        raise BudgetError(
            f"a budget must be met by weights that are not 0, but of the {kept} to keep "
            f"{criterion} chooses only {count_nonzero(ranked)} such; choose a criterion that "
            "looks at the weights, or draw them anew with sculpt.initialize"
        )
    return ranked


@contextmanager
def _sparing(
    model: nn.Module, include: Sequence[str], exclude: Sequence[str]
) -> Iterator[dict[str, nn.Parameter]]:
    """Freeze the parameters that patterns leave whole, in a context; return them by name."""
    prunable = prunable_parameters(model)
    hint = "".join(f"; {name}, in full, is an embedding's" for name in embeddings(model))
    chosen = set(matching(prunable, include, exclude, hint))
    spared = {name: p for name, p in prunable.items() if name not in chosen}
    try:
        for parameter in spared.values():
            parameter.requires_grad_(False)
        yield spared
    finally:
        for parameter in spared.values():
            parameter.requires_grad_(True)


def _left_out(model: nn.Module, known: Container[str]) -> str | None:
    """Say which parameters are not pruned, but for norms and those that the user knows of."""
    prunable, norms = prunable_parameters(model), set[nn.Parameter]()
    for module in model.modules():
        if isinstance(module, NEVER_PRUNED):
            norms.update(module.parameters(recurse=False))
    others = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if name not in prunable and name not in known and parameter not in norms
    ]
    if not others:
        return None
    share = sum(p.numel() for _, p in others) / sum(p.numel() for p in model.parameters())
    names = [name if p.requires_grad else f"{name} (frozen)" for name, p in others]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return (
        "trainable weights and biases of conv, linear and attention layers are pruned; the rest, "
        f"{share:.1%} of the network's parameters, is left alone, and counts toward a budget only "
        "if it trains and counting is 'total': " + ", ".join(names[:MOST_NAMES]) + more
    )

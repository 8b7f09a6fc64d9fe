"""From scores to masks: the scope, granularity, layer budgets and price of a ranking."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import nn

from sculpt.diagnostics.arguments import InputShape
from sculpt.diagnostics.cost import check_counted, measure_cost
from sculpt.diagnostics.layers import (
    by_output,
    check_no_embeddings,
    from_outputs,
    kept_weights,
    layer_groups,
    weighted_layers,
    weights_of,
)
from sculpt.diagnostics.topology import measure_topology
from sculpt.errors import BudgetError, DryRankingError, InputError, check_choice
from sculpt.pruning.channels import keep_highest_channels
from sculpt.pruning.groups import keep_highest_kernels, usable_weights
from sculpt.pruning.layer_budgets import LayerBudgets, layer_counts, proportional_counts
from sculpt.pruning.masks import Masks, Scores, check_finite, check_usable, keep_highest
from sculpt.pruning.patterns import check_scored, keep_between_rounds, pattern_of

Scope = Literal["global", "layer"]
GRANULARITIES = ("weight", "kernel", "channel")

FILLED_BY_SINGLES = 0.01
"""Share of an effective budget that single weights may fill; ranking closer takes long."""


@dataclass(frozen=True)
class MaskRule:
    """How scores become masks; by default the highest scores of the whole network are kept.

    Raises:
        InputError: a setting is not one of its values, or two of them contradict each other.
    """

    scope: Scope = "global"
    """`layer` ranks each layer (its weight and bias) by itself, all at one density."""
    granularity: str = "weight"
    """`kernel` keeps or removes the k×k weights between two channels as a whole, `channel` a
    channel with everything that writes or reads it. Scores are summed over a kernel; those of a
    channel are counted for each of its parameters. The budget is then met as closely as whole
    groups allow, and never exceeded. `N:M`, such as `2:4`, keeps at most N of every M consecutive
    inputs (see `Pattern`): those of the highest scores, and of these the best, down to the budget,
    which is met exactly. With scope `layer`, all layers have one share of what is so possible."""
    mac_exponent: float = 0.0
    """p: a score is divided by (H·W)^p of its layer's output, the number of uses of its weight."""
    effective: bool = False
    """Replace kept weights on no path from input to output by weights that lie on one; of a
    pattern, by others that are among the N best of their M."""
    layer_budgets: LayerBudgets | None = None
    """How many weights each layer keeps, whatever the scores are, which then choose within it:
    `erk` (`erk_counts`) or `balanced` (`balanced_counts`), of the weights that have a score."""

    def __post_init__(self) -> None:
        check_choice("scope", self.scope, get_args(Scope))
        if self.granularity not in GRANULARITIES and pattern_of(self.granularity) is None:
            raise InputError(
                f"granularity must be one of {', '.join(GRANULARITIES)}, or a pattern N:M such as "
                f"2:4, but got {self.granularity!r}"
            )
        if self.granularity == "channel" and self.scope == "layer":
            raise InputError(
                "whole channels must be ranked over the network (removing one shrinks two "
                "layers), but got granularity 'channel' with scope 'layer'; use scope 'global'"
            )
        if self.layer_budgets is not None:
            check_choice("layer_budgets", self.layer_budgets, get_args(LayerBudgets))
            for name, value, default in (
                ("scope", self.scope, "global"),
                ("mac_exponent", self.mac_exponent, 0),
                ("effective", self.effective, False),
            ):
                if value != default:
                    raise InputError(
                        f"{name} must be {default} where layer_budgets say how many weights each "
                        f"layer keeps, but got {value!r} with layer_budgets "
                        f"{self.layer_budgets!r}; leave one of them out"
                    )
            if self.granularity == "channel":
                raise InputError(
                    "layer_budgets must be left out where whole channels go (removing one shrinks "
                    f"two layers), but got {self.layer_budgets!r} with granularity 'channel'; "
                    "choose another granularity"
                )

    @property
    def ranks_single_weights(self) -> bool:
        """Whether nothing but the ranking of all weights decides what is kept."""
        single = self.granularity == "weight" and self.scope == "global"
        return single and not self.effective and not self.layer_budgets


def select_masks(
    model: nn.Module,
    scores: Scores,
    kept: int,
    rule: MaskRule,
    input_shape: InputShape | None,
    *,
    final: int | None = None,
) -> Masks:
    """Mask all but the highest scores.

    Args:
        model: The scored network; not changed.
        scores: Higher = keep, keyed by parameter name.
        kept: Weights and biases to keep. Met exactly, except by whole groups and by `effective`
            where too few weights lie on a path; then as many as possible are kept.
        rule: Scope, granularity, price, and whether ineffective weights are replaced.
        input_shape: Shape of one input, without its batch dimension.
        final: Weights that are kept in the end, between rounds that prune little by little. Then a
            pattern and layer budgets spare what they will keep, but may be exceeded.

    Raises:
        NumericsError: a score is not finite; the message names the parameter.
        BudgetError: `kept` is out of range, or more than a pattern has room for.
        DryRankingError: too few scores are non-zero; the message names the layers without any.
        InputError: the input's shape is needed and not known.
    """
    check_finite(scores)
    total = sum(score.numel() for score in scores.values())
    if not 0 <= kept <= total:
        raise BudgetError(f"the number of kept weights must be from 0 to {total}, but got {kept}")
    frozen = {
        name: torch.ones_like(model.get_parameter(name), dtype=torch.bool)
        for name in weights_of(model)
        if name not in scores
    }
    return _select(model, scores, kept, rule, input_shape, final) | frozen


def _select(
    model: nn.Module,
    scores: Scores,
    kept: int,
    rule: MaskRule,
    input_shape: InputShape | None,
    final: int | None,
) -> Masks:
    """Mask all but the highest scores; only of what has scores."""
    priced = dict(scores)
    if rule.mac_exponent or rule.effective or rule.granularity == "channel":
        check_no_embeddings(model, "mac_exponent, effective and granularity 'channel'")
        shape = required_shape(input_shape, "mac_exponent, effective and granularity 'channel'")
        if p := rule.mac_exponent:
            # A weight that is used at many positions must earn its MACs.
            cost, owners = measure_cost(model, shape), weights_of(model)
            check_counted(model, cost)
            # One that is never used earns nothing.
            priced = {
                name: score / cost.positions[owners[name]] ** p
                if owners[name] in cost.positions
                else 0 * score
                for name, score in scores.items()
            }
        if rule.granularity == "channel":
            return keep_highest_channels(model, priced, kept, shape)
    allowed: Masks | None = None
    if pattern := pattern_of(rule.granularity):
        allowed = pattern.best(model, priced)
        within = {name: score.where(allowed[name], 0) for name, score in priced.items()}
        if final is not None and kept > count_nonzero(within):
            return keep_between_rounds(allowed, priced, kept)
        pattern.check_budget(model, kept)
        check_scored(pattern, allowed, priced, kept)
        # Whatever is kept of the best of each run, the pattern holds.
        priced, rule = within, replace(rule, granularity="weight")
    if rule.effective:
        shape = required_shape(input_shape, "effective")
        return _spend_on_paths(model, priced, kept, rule, shape, allowed)
    if rule.layer_budgets:
        by_kernel = rule.granularity == "kernel"
        return _keep_by_layer(priced, kept, rule.layer_budgets, allowed, final, by_kernel=by_kernel)
    return _keep(priced, kept, rule, weights_of(model), allowed)


def required_shape(input_shape: InputShape | None, user: str) -> InputShape:
    """Return the shape of an input.

    Raises:
        InputError: it is None; the message names its user.
    """
    if input_shape is None:
        raise InputError(
            f"{user} must know the shape of an input, but got none; give inputs= or "
            "input_shape=, for example input_shape=(3, 32, 32)"
        )
    return input_shape


def _keep(
    scores: Scores, kept: int, rule: MaskRule, owners: Mapping[str, str], allowed: Masks | None
) -> Masks:
    """Keep the highest scores of each group of parameters that are ranked together.

    None but those in `allowed`, by default all, may have a score.
    """
    layers: dict[str, Scores] = {}
    for name, score in scores.items():
        layer = "" if rule.scope == "global" else owners[name]
        layers.setdefault(layer, {})[name] = score
    sizes = {
        layer: sum(s.numel() for s in own.values())
        if allowed is None
        else kept_weights({name: allowed[name] for name in own})
        for layer, own in layers.items()
    }
    keep = keep_highest_kernels if rule.granularity == "kernel" else keep_highest
    masks: Masks = {}
    for layer, count in proportional_counts(sizes, kept).items():
        if allowed is not None and count == sizes[layer]:
            masks |= {name: allowed[name].clone() for name in layers[layer]}
        else:
            masks |= keep(layers[layer], count)
    return {name: masks[name] for name in scores}


def _keep_by_layer(
    scores: Scores,
    kept: int,
    budgets: LayerBudgets,
    allowed: Masks | None,
    final: int | None,
    *,
    by_kernel: bool,
) -> Masks:
    """Keep the highest scores of each parameter, as many as its layer's budget says.

    A layer has room for the weights that have a score: initializers draw some as exactly 0, and
    layers that are to be dense pass the difference on.
    """
    if allowed is None:
        allowed = {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}
    if kept == kept_weights(allowed):
        return {name: mask.clone() for name, mask in allowed.items()}
    usable = {name: usable_weights(score, by_kernel) for name, score in scores.items()}
    check_usable(scores, kept, sum(usable.values()))
    shapes = {name: score.shape for name, score in scores.items()}
    counts = layer_counts(budgets, shapes, kept, usable)
    if final is not None:  # rounding may give a layer one weight more in the end than now
        last = layer_counts(budgets, shapes, final, usable)
        counts = {name: max(count, last[name]) for name, count in counts.items()}
    if dry := [name for name, shape in shapes.items() if len(shape) > 1 and not usable[name]]:
        raise DryRankingError(
            f"layer_budgets {budgets!r} must find scores in every layer that keeps "
            f"weights, but all of {dry[0]} are 0; leave it out of pruning, or use another "
            "criterion or initializer"
        )
    keep = keep_highest_kernels if by_kernel else keep_highest
    masks: Masks = {}
    for name, score in scores.items():
        masks |= keep({name: score}, counts[name])
    return masks


def _spend_on_paths(
    model: nn.Module,
    scores: Scores,
    kept: int,
    rule: MaskRule,
    input_shape: InputShape,
    allowed: Masks | None,
) -> Masks:
    """Spend the budget on weights that all lie on paths.

    The ranking is widened until its weights on paths nearly fill the budget (dead nodes come
    alive on the way), and single weights fill the rest: each joins two live nodes, so it is on a
    path whatever the others are. Where the ranking connects the network only with more weights
    than the budget, these are cut down to it, sparing a way in and out of each node.
    """
    owners = weights_of(model)

    def scored(masks: Masks) -> Masks:
        return {name: masks[name] for name in scores}

    def on_paths(masks: Masks) -> Masks:
        return scored(measure_topology(model, masks, input_shape).effective)

    def fill(masks: Masks, allowed: Masks) -> Masks:
        """Add the best of the other allowed weights to masks, up to the budget."""
        others = {name: scores[name] * (allowed[name] & ~masks[name]) for name in scores}
        wanted = min(kept - kept_weights(masks), count_nonzero(others))
        filled = _keep(others, wanted, replace(rule, scope="global"), owners, allowed=None)
        return {name: masks[name] | filled[name] for name in scores}

    best, too_much = on_paths(_keep(scores, kept, rule, owners, allowed)), None
    step = max(1, kept - kept_weights(best))
    low, high = kept, count_nonzero(scores) + 1
    while high - low > 1 and kept_weights(best) < (1 - FILLED_BY_SINGLES) * kept:
        width = min(low + step, (low + high) // 2)
        step *= 2
        try:
            found = on_paths(_keep(scores, width, rule, owners, allowed))
        except DryRankingError:  # a layer that is ranked by itself has no more scores
            high = width
            continue
        if kept_weights(found) <= kept:
            low, best = width, found
        else:
            high, too_much = width, found
    if kept_weights(best) < (1 - FILLED_BY_SINGLES) * kept and too_much is not None:
        ways = spanning_weights(model, scores, too_much, rule.granularity)
        if kept_weights(ways) <= kept:
            # On small images a way may still be lost: not every pixel leads to the next.
            best = max(best, on_paths(fill(ways, too_much)), key=kept_weights)
    return fill(best, scored(measure_topology(model, best, input_shape).reachable))


def spanning_weights(model: nn.Module, scores: Scores, effective: Masks, granularity: str) -> Masks:
    """Keep the best weight into and out of every node, and with them all nodes on paths.

    All weights of `effective` must lie on paths; granularity `kernel` spares whole kernels.
    """
    spared = {name: torch.zeros_like(mask) for name, mask in effective.items()}
    for name, layer in weighted_layers(model).items():
        if name not in effective:
            continue
        # (groups, outputs of each, inputs of each, kernel)
        mask, ranks = (
            by_output(layer, tensor[name]).unflatten(0, (layer_groups(layer), -1))
            for tensor in (effective, scores)
        )
        ways = torch.zeros_like(mask)
        for node in (1, 2):
            rows = mask.movedim(node, 1).flatten(2)
            ranked = ranks.movedim(node, 1).flatten(2).masked_fill(~rows, -torch.inf)
            best = torch.zeros_like(rows).scatter_(2, ranked.argmax(2, keepdim=True), True) & rows
            ways |= best.view(mask.movedim(node, 1).shape).movedim(1, node)
        if granularity == "kernel":
            ways = mask & ways.any(3, keepdim=True)
        spared[name] = from_outputs(layer, ways.flatten(0, 1))
    return spared


def count_nonzero(scores: Scores) -> int:
    """Count the scores that are not 0."""
    return sum(int(torch.count_nonzero(score)) for score in scores.values())

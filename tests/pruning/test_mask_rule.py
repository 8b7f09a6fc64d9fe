"""From scores to masks: scope, groups, the price of MACs, and budgets spent on paths only."""

import itertools
from typing import Any

import pytest
import torch
from networks import count, equal, small_resnet
from torch import nn

import sculpt
from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.topology import measure_topology
from sculpt.errors import BudgetError, DryRankingError, InputError, NumericsError, SculptWarning
from sculpt.pruning.mask_rule import MaskRule, select_masks
from sculpt.pruning.masks import (
    Masks,
    Scores,
    collapsed_layers,
    count_parameters,
    keep_highest,
    prunable_parameters,
)
from sculpt.registry import CRITERIA

SHAPE = (1, 8, 8)
IMAGES = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(0))


def random_scores(model: nn.Module, seed: int = 0) -> Scores:
    """Scores that are never zero, biases included."""
    stream = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(parameter.shape, generator=stream) + 0.01
        for name, parameter in prunable_parameters(model).items()
    }


def select(model: nn.Module, scores: Scores, kept: int, **options: Any) -> Masks:
    return select_masks(model, scores, kept, MaskRule(**options), SHAPE)


def test_by_default_the_highest_scores_of_the_network_are_kept():
    model = small_resnet(widening=2)
    scores = random_scores(model)
    assert equal(select(model, scores, 700), keep_highest(scores, 700))


class TestScope:
    def test_each_layer_keeps_its_best_at_one_density(self):
        model = small_resnet(widening=2)
        scores = random_scores(model)
        scores["classifier.weight"] *= 1000  # would take everything in a global ranking
        total = count_parameters(model, "paper")
        kept = round(0.3 * total)
        masks = select(model, scores, kept, scope="layer")
        assert count(masks) == kept
        layers = {name.rpartition(".")[0] for name in masks}
        for layer in layers:
            own = [masks[f"{layer}.weight"], masks[f"{layer}.bias"]]
            size = sum(mask.numel() for mask in own)
            assert abs(sum(int(m.sum()) for m in own) - kept * size / total) < 1, layer
            own_scores, kept_here = scores[f"{layer}.weight"], masks[f"{layer}.weight"]
            assert (own_scores[~kept_here] < own_scores[kept_here].min()).all()

    def test_a_dry_layer_is_named_even_if_others_have_scores(self):
        model = small_resnet(widening=2)
        scores = random_scores(model)
        scores["stem.conv.weight"].zero_()
        scores["stem.conv.bias"].zero_()
        select(model, scores, 700)
        with pytest.raises(DryRankingError, match=r"all zero in: stem\.conv\.weight"):
            select(model, scores, 700, scope="layer")


class TestPrice:
    @pytest.mark.parametrize("exponent", [0.5, 1.0, -1.0])
    def test_scores_are_divided_by_the_positions_of_their_layer(self, exponent):
        model = small_resnet(widening=2)
        scores = random_scores(model)
        positions = measure_cost(model, SHAPE).positions
        assert set(positions.values()) == {64, 16, 4, 1}
        priced = {
            name: score / positions[name.replace("bias", "weight")] ** exponent
            for name, score in scores.items()
        }
        masks = select(model, scores, 700, mac_exponent=exponent)
        assert equal(masks, keep_highest(priced, 700))

    def test_macs_become_cheaper(self):
        model = small_resnet(widening=2)
        scores = random_scores(model)
        cost = measure_cost(model, SHAPE)
        macs = [cost.kept_macs(select(model, scores, 700, mac_exponent=p)) for p in (0.0, 0.5, 1.0)]
        assert macs[0] > macs[1] > macs[2]


class TestKernels:
    def test_kernels_stay_whole_and_the_best_are_kept(self):
        model = small_resnet(widening=2)
        scores = random_scores(model)
        masks = select(model, scores, 900, granularity="kernel")
        assert 900 - 9 < count(masks) <= 900
        kept, removed = [], []
        for name, mask in masks.items():
            if mask.dim() == 4:
                sizes = mask.flatten(2).sum(2)
                assert set(sizes.unique().tolist()) <= {0, 9}, name
                kept.append(scores[name].flatten(2).sum(2)[sizes == 9])
                removed.append(scores[name].flatten(2).sum(2)[sizes == 0])
        assert torch.cat(kept).min() > torch.cat(removed).max()

    def test_small_groups_fill_what_is_left(self):
        # Kernels of 9, 4 and single weights: 9 + 4 do not fit into 12, 9 + 1 + 1 + 1 do.
        scores = {
            "a.weight": torch.full((1, 1, 3, 3), 1.0),
            "b.weight": torch.full((1, 1, 2, 2), 2.0),
            "c.weight": torch.tensor([[0.3, 0.2, 0.1, 0.0]]),
        }
        masks = select_masks(nn.Module(), scores, 12, MaskRule(granularity="kernel"), None)
        assert masks["a.weight"].all()
        assert not masks["b.weight"].any()
        assert masks["c.weight"].tolist() == [[True, True, True, False]]

    def test_kernels_without_a_score_never_fill_the_budget(self):
        model = small_resnet(widening=2)
        scores = random_scores(model)
        for name, score in scores.items():
            if name != "stem.conv.weight":
                score.zero_()
        with pytest.raises(DryRankingError, match="only 36 of"):
            select(model, scores, 40, granularity="kernel")


class TestChannels:
    @pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
    def test_every_layer_is_dense_on_the_channels_it_has_left(self, share):
        model = small_resnet(widening=2)
        budget = round(share * count_parameters(model, "paper"))
        masks = select(model, random_scores(model), budget, granularity="channel")
        assert 0.85 * budget < count(masks) <= budget
        for name, mask in masks.items():
            if mask.dim() > 1:
                kernels = mask.view(*mask.shape[:2], -1).any(2)
                assert mask[kernels.any(1)][:, kernels.any(0)].all(), name
        assert not collapsed_layers(masks)
        assert masks["classifier.weight"].any(1).all()  # no class is lost
        assert equal(masks, measure_topology(model, masks, SHAPE).effective)

    def test_in_a_chain_what_a_removed_channel_fed_goes_with_it(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        scores = {name: torch.ones_like(p) for name, p in prunable_parameters(model).items()}
        scores["1.weight"] *= torch.tensor([4.0, 1.0, 3.0, 2.0])[:, None]
        # A hidden unit costs 3 weights, 1 bias and 2 outgoing weights; the output has 2 biases.
        masks = select_masks(model, scores, 15, MaskRule(granularity="channel"), (3,))
        assert count(masks) == 14
        assert masks["1.bias"].tolist() == [True, False, True, False]
        assert masks["3.weight"].tolist() == [[True, False, True, False]] * 2

    def test_a_budget_below_one_channel_each_is_refused(self):
        model = small_resnet(widening=2)
        with pytest.raises(BudgetError, match="one channel of every layer"):
            select(model, random_scores(model), 50, granularity="channel")

    def test_layers_cannot_be_ranked_for_themselves(self):
        with pytest.raises(InputError, match="use scope 'global'"):
            MaskRule(granularity="channel", scope="layer")


class TestEffective:
    @pytest.mark.parametrize("seed", range(2))
    @pytest.mark.parametrize("scope", ["global", "layer"])
    @pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
    def test_every_kept_weight_is_on_a_path_and_the_budget_is_met(self, seed, scope, share):
        model = small_resnet(widening=4)
        kept = round(share * count_parameters(model, "paper"))
        scores = random_scores(model, seed)
        plain = select(model, scores, kept, scope=scope)
        on_paths = measure_topology(model, plain, SHAPE).effective
        assert count(on_paths) < kept
        masks = select(model, scores, kept, scope=scope, effective=True)
        assert count(masks) == kept
        assert equal(masks, measure_topology(model, masks, SHAPE).effective)
        assert all((masks[name] | ~mask).all() for name, mask in on_paths.items()), "these stay"

    def test_where_no_weight_is_wasted_nothing_changes(self):
        model = small_resnet(widening=2)
        scores = random_scores(model)
        kept = count_parameters(model, "paper") - 20
        assert equal(select(model, scores, kept, effective=True), select(model, scores, kept))

    def test_a_disconnected_ranking_is_widened_until_there_is_a_path(self):
        # The two best weights of each layer meet at no unit; the third ones do.
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False)
        )
        scores = {
            "1.weight": torch.tensor([[9.0, 8.0], [2.0, 1.0], [0.5, 0.4]]),
            "2.weight": torch.tensor([[0.3, 0.2, 7.0]]),
        }
        plain = select_masks(model, scores, 3, MaskRule(), (2,))
        assert count(measure_topology(model, plain, (2,)).effective) == 0
        masks = select_masks(model, scores, 3, MaskRule(effective=True), (2,))
        assert count(masks) == 3
        assert count(measure_topology(model, masks, (2,)).effective) == 3

    def test_it_says_by_how_many_it_fell_short(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False), nn.Linear(3, 10))

        @CRITERIA.register("blind to one unit")
        def blind(model: nn.Module, task: object) -> Scores:
            scores = {name: torch.ones_like(p) for name, p in prunable_parameters(model).items()}
            scores["2.weight"][:, 2] = 0  # so what feeds the third unit is wasted
            scores["2.bias"].zero_()
            return scores

        try:
            with pytest.warns(SculptWarning, match=r"^62 of 210 parameters could not be spent"):
                masks = sculpt.prune(
                    model, 210, criterion="blind to one unit", input_shape=SHAPE, effective=True
                )
        finally:
            del CRITERIA._entries["blind to one unit"]
        assert count(masks) == 148
        assert not masks["1.weight"][2].any()


class TestDetection:
    def test_a_collapsed_layer_is_named(self):
        model = small_resnet(widening=2)
        with torch.no_grad():
            model.stages[1][0].first.conv.weight.mul_(1e-6)
        with pytest.warns(SculptWarning, match=r"nothing is left of stages\.1\.0\.first\.conv"):
            masks = sculpt.prune(model, 700, criterion="magnitude")
        assert collapsed_layers(masks) == ["stages.1.0.first.conv.weight"]

    @pytest.mark.parametrize("granularity", ["weight", "kernel", "channel"])
    def test_nan_is_named(self, granularity):
        model = small_resnet(widening=2)
        scores = random_scores(model)
        scores["classifier.weight"][0, 0] = torch.nan
        with pytest.raises(NumericsError, match=r"1 of 320 scores of classifier\.weight"):
            select(model, scores, 900, granularity=granularity)

    @pytest.mark.parametrize(
        "options", [{"effective": True}, {"mac_exponent": 1.0}, {"granularity": "channel"}]
    )
    def test_the_shape_of_an_input_must_be_known(self, options):
        with pytest.raises(InputError, match=r"input_shape=\(3, 32, 32\)"):
            sculpt.prune(small_resnet(widening=2), 700, criterion="magnitude", **options)

    @pytest.mark.parametrize("option", ["scope", "granularity"])
    def test_an_unknown_word_is_refused(self, option):
        with pytest.raises(InputError, match=f"{option} must be one of .*, but got 'rows'"):
            sculpt.prune(small_resnet(widening=2), 700, criterion="magnitude", **{option: "rows"})


@pytest.mark.filterwarnings("ignore::sculpt.errors.SculptWarning")
def test_all_settings_work_together_on_a_plain_module():
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 5)
    )
    settings = itertools.product(
        ("global", "layer"), ("weight", "kernel"), (0.0, 1.0), (False, True)
    )
    names = ("scope", "granularity", "mac_exponent", "effective")
    for setting in settings:
        state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        masks = sculpt.prune(model, 200, inputs=IMAGES, **dict(zip(names, setting, strict=True)))
        assert 0 < count(masks) <= 200
        for key, parameter in model.named_parameters():
            assert torch.equal(parameter, state[key] * masks[key]), key
        model.load_state_dict(state)


def test_the_masks_are_tensors_of_their_own():
    model = small_resnet(widening=2)
    scores = random_scores(model)
    for granularity in ("weight", "kernel", "channel"):
        masks = select(model, scores, 900, granularity=granularity)
        for mask in masks.values():
            mask.fill_(True)  # an expanded view would refuse, or write everywhere

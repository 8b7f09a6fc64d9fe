"""Effective nodes, weights and paths on networks small enough to enumerate."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import appearance, equal, normal, random_masks
from torch import Tensor, nn

from sculpt.diagnostics.signal import Signal
from sculpt.diagnostics.topology import Topology, linear_skeleton, measure_topology
from sculpt.errors import InputError
from sculpt.models.resnet import resnet
from sculpt.pruning.masks import Masks, dense_masks, prunable_parameters


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def masks_of(model: nn.Module, *matrices: Any) -> Masks:
    """Return dense masks with these weights in order, as 0s and 1s."""
    masks = dense_masks(model)
    names = [name for name in masks if name.endswith("weight")]
    for name, matrix in zip(names, matrices, strict=True):
        masks[name] = torch.as_tensor(matrix).bool().view(masks[name].shape)
    return masks


def paths(topology: Topology) -> float:
    return 0 if topology.log10_paths is None else 10**topology.log10_paths


def enumerate_paths(matrices: list[np.ndarray]) -> list[tuple[int, ...]]:
    """List every path through an MLP as its units, from an input to an output."""
    found: list[tuple[int, ...]] = [(unit,) for unit in range(matrices[0].shape[1])]
    for matrix in matrices:
        found = [
            (*path, unit) for path in found for unit in range(len(matrix)) if matrix[unit, path[-1]]
        ]
    return found


class TestByHand:
    def test_a_unit_that_nothing_reaches_and_a_unit_that_nobody_reads(self):
        # Hidden unit 0 has no inputs (but a bias); unit 1 is not read; unit 2 carries both paths.
        model = mlp(2, 3, 1)
        masks = masks_of(model, [[0, 0], [1, 1], [1, 1]], [[1, 0, 1]])
        assert masks["0.bias"].all()
        topology = measure_topology(normal(model), masks, (2,))
        assert topology.channels == {"0.weight": 1, "2.weight": 1}
        assert topology.parameters == 3  # of 6 kept: 2 into unit 1 and 1 out of unit 0 are wasted
        assert paths(topology) == pytest.approx(2, rel=1e-9)


class TestConvolutions:
    def test_paths_are_counted_at_every_pixel(self):
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 2))
        topology = measure_topology(model, dense_masks(model), (2, 5, 5))
        # 2×2 outputs of 4 channels, each from 3·2·2 hidden values, each from 2·3·3 pixels.
        assert paths(topology) == pytest.approx(16 * 12 * 18, rel=1e-9)
        assert topology.nodes == 7
        assert topology.parameters == 54 + 48

    def test_a_maximum_passes_what_an_average_does(self):
        def network(pool: nn.Module) -> nn.Module:
            return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), pool, nn.Conv2d(2, 2, 2))

        model = network(nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True))
        average = network(nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True))
        masks = dense_masks(model)
        masks["0.weight"][0] = False
        masks["3.weight"][0, 1] = False
        assert model(torch.ones(1, 1, 8, 8)).shape == (1, 2, 3, 3)
        topology = measure_topology(model, masks, (1, 8, 8))
        assert topology == measure_topology(average, masks, (1, 8, 8))
        assert topology.channels == {"0.weight": 1, "3.weight": 1}
        assert topology.parameters == 9 + 4

    def test_weights_that_only_ever_see_the_padding_are_wasted(self):
        model = nn.Conv2d(2, 3, 3, padding=1)
        assert measure_topology(model, dense_masks(model), (2, 1, 1)).parameters == 6
        assert measure_topology(model, dense_masks(model), (2, 2, 2)).parameters == 54

    def test_groups_do_not_mix(self):
        model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2))
        masks = dense_masks(model)
        masks["0.weight"][:2] = False  # everything that the first group reads
        topology = measure_topology(model, masks, (2, 3, 3))
        assert topology.channels == {"0.weight": 2, "1.weight": 2}
        assert topology.parameters == 4 + 4


class TestResidualNetworks:
    def test_a_dense_one_is_wholly_effective(self):
        model = resnet(3, 10, blocks=1, shortcut="projection")
        weights = {n: p for n, p in prunable_parameters(model).items() if p.dim() > 1}
        topology = measure_topology(model, dense_masks(model), (3, 8, 8))
        assert topology.parameters == sum(p.numel() for p in weights.values())
        assert topology.channels == {name: len(p) for name, p in weights.items()}

    def test_shortcuts_are_paths(self):
        """With every block pruned, 16 channels still reach the classifier, averaged on the way."""
        model = resnet(1, 10, blocks=2)
        masks = dense_masks(model)
        for name, mask in masks.items():
            if "stages" in name:
                mask.fill_(False)
        topology = measure_topology(model, masks, (1, 8, 8))
        assert topology.nodes == 16 + 10
        assert topology.parameters == 16 * 9 + 16 * 10  # the classifier has 64 inputs
        # A 3×3 window has 22/8 pixels inside the image on average, in each direction.
        assert paths(topology) == pytest.approx((22 / 8) ** 2 * 16 * 10, rel=1e-9)

    @pytest.mark.parametrize(("pruned", "wasted"), [("first", 5 * 32 * 9), ("second", 5 * 16 * 9)])
    def test_a_channel_pruned_inside_a_block(self, pruned, wasted):
        """What reads it is wasted, and what leads to it."""
        model = resnet(1, 10, blocks=1)
        masks = dense_masks(model)
        mask = masks[f"stages.1.0.{pruned}.conv.weight"]
        (mask if pruned == "first" else mask.transpose(0, 1))[:5] = False
        topology = measure_topology(model, masks, (1, 8, 8))
        assert topology.channels["stages.1.0.first.conv.weight"] == 27
        kept = sum(int(m.sum()) for name, m in masks.items() if name.endswith("weight"))
        assert topology.parameters == kept - wasted

    def test_batch_norm_and_its_statistics_do_not_matter(self):
        model = resnet(1, 10, blocks=1, stem_width=4)
        expected = measure_topology(model, dense_masks(model), (1, 8, 8))
        for name, tensor in model.state_dict().items():
            if "norm" in name and tensor.is_floating_point():
                tensor.normal_()
        assert measure_topology(model, dense_masks(model), (1, 8, 8)) == expected


class TestBruteForce:
    @staticmethod
    def matrices(seed: int) -> list[np.ndarray]:
        random = np.random.default_rng(seed)
        widths = random.integers(1, 6, size=random.integers(2, 6))
        density = random.choice([random.uniform(0.15, 0.9), 1.0], p=[0.9, 0.1])
        return [random.random(pair[::-1]) < density for pair in itertools.pairwise(widths)]

    @pytest.mark.parametrize("seed", range(60))
    def test_random_mlps(self, seed):
        matrices = self.matrices(seed)
        inputs = matrices[0].shape[1]
        model = mlp(inputs, *map(len, matrices), activation=nn.Tanh)
        topology = measure_topology(model, masks_of(model, *matrices), (inputs,))
        found = enumerate_paths(matrices)
        units = [{path[layer + 1] for path in found} for layer in range(len(matrices))]
        edges = [{path[layer : layer + 2] for path in found} for layer in range(len(matrices))]
        assert paths(topology) == pytest.approx(len(found), rel=1e-9)
        assert (topology.log10_paths is None) == (not found)
        assert list(topology.channels.values()) == [len(layer) for layer in units]
        assert topology.nodes == sum(len(layer) for layer in units)
        assert topology.parameters == sum(len(layer) for layer in edges)

    def test_they_are_not_one_sided(self):
        sizes = {len(enumerate_paths(self.matrices(seed))) for seed in range(60)}
        assert {0, 1} < sizes
        assert max(sizes) > 50


class TestLargeNumbers:
    @pytest.mark.parametrize("layer", [5, 195])
    def test_dead_units_are_found_among_them(self, layer):
        """Zero times infinity is not a number: near either end, all values must stay small."""
        model = mlp(10, *200 * [100])
        masks = dense_masks(model)
        masks[f"{2 * layer}.weight"][:60] = False  # unreached units
        masks[f"{2 * layer}.weight"][:, :30] = False  # and unread ones, in the layer before
        topology = measure_topology(model, masks, (10,))
        expected = {f"{2 * index}.weight": 100 for index in range(200)}
        expected |= {f"{2 * layer}.weight": 40, f"{2 * layer - 2}.weight": 70}
        assert topology.channels == expected
        assert topology.log10_paths == pytest.approx(401 + math.log10(0.4 * 0.7), abs=1e-9)

    @pytest.mark.parametrize(
        ("width", "depth"), [(100, 199), pytest.param(3, 2000, marks=pytest.mark.slow), (300, 150)]
    )
    def test_the_closed_form_of_a_dense_network(self, width, depth):
        model = mlp(*(depth + 1) * [width])
        topology = measure_topology(model, dense_masks(model), (width,))
        exact = width ** (depth + 1)
        assert exact > 2**1023
        assert topology.log10_paths == pytest.approx(math.log10(exact), rel=1e-13)
        assert topology.nodes == width * depth

    def test_a_few_paths_beside_very_many(self):
        """Two towers: the second has 10^400 times fewer paths halfway, and is the one read."""
        widths = [20, *200 * [20], 1]
        model = mlp(*widths)
        masks = dense_masks(model)
        for index in range(1, 200):
            mask = masks[f"{2 * index}.weight"]
            mask[10:, :10] = mask[:10, 10:] = False  # the towers do not touch
            if index < 195:
                mask[10:, 10:] = torch.eye(10, dtype=torch.bool)
        masks["400.weight"][:, :10] = False
        topology = measure_topology(model, masks, (20,))
        assert topology.log10_paths == pytest.approx(math.log10(20 * 10 * 10**5), rel=1e-12)
        assert topology.nodes == 200 * 10 + 1

    def test_the_widest_candidate_of_the_paper(self):
        model = resnet(3, 10, widening=8, blocks=3)
        masks = dense_masks(model)
        topology = measure_topology(model, masks, (3, 8, 8))
        assert math.isfinite(topology.log10_paths)
        narrow = resnet(3, 10, blocks=3)
        few = measure_topology(narrow, dense_masks(narrow), (3, 8, 8)).log10_paths
        # No layer but the stem's has more than 8 times the fan-in.
        assert few < topology.log10_paths <= few + 19 * math.log10(8)
        assert topology.parameters == sum(
            int(mask.sum()) for name, mask in masks.items() if name.endswith("weight")
        )


class TestPositions:
    def test_by_hand(self):
        # Unit 0 has no inputs, unit 1 is not read, unit 2 carries the paths, unit 3 is cut off.
        model = mlp(2, 4, 1)
        masks = masks_of(model, [[0, 0], [1, 1], [1, 0], [0, 0]], [[1, 0, 1, 0]])
        masks["0.bias"] = torch.tensor([True, True, False, True])
        masks["2.bias"][:] = False
        topology = measure_topology(model, masks, (2,))

        def lists(positions: Masks) -> dict[str, Any]:
            return {name: mask.int().tolist() for name, mask in positions.items()}

        assert lists(topology.effective) == {
            "0.weight": [[0, 0], [0, 0], [1, 0], [0, 0]],
            "0.bias": [0, 0, 0, 0],  # unit 2's is not kept
            "2.weight": [[0, 0, 1, 0]],
            "2.bias": [0],
        }
        assert lists(topology.reachable) == {
            "0.weight": [[1, 1], [0, 0], [1, 1], [0, 0]],  # units 0 and 2 are read
            "0.bias": [0, 0, 1, 0],
            "2.weight": [[0, 1, 1, 0]],  # units 1 and 2 are reached
            "2.bias": [1],
        }

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("network", ["mlp", "resnet"])
    def test_keeping_one_reachable_weight_puts_it_on_a_path(self, network, seed):
        if network == "mlp":
            model, shape, density = mlp(4, 3, 3, 3, 2), (4,), 0.3
        else:
            model, shape, density = resnet(1, 2, blocks=1, stem_width=2), (1, 4, 4), 0.05
        masks = random_masks(model, density, seed)
        torch.manual_seed(seed)
        topology = measure_topology(model, masks, shape)
        assert set(topology.effective) == set(topology.reachable) == set(masks)
        sizes = {"lost": 0, "gained": 0}
        for name, mask in masks.items():
            effective, reachable = topology.effective[name], topology.reachable[name]
            assert torch.equal(effective, reachable & mask), name
            pruned = torch.nonzero(~mask.flatten()).flatten()
            for index in pruned[torch.randperm(len(pruned))[:2]].tolist():
                more = {key: kept.clone() for key, kept in masks.items()}
                more[name].view(-1)[index] = True
                on_a_path = measure_topology(model, more, shape).effective[name]
                assert on_a_path.flatten()[index] == reachable.flatten()[index]
                sizes["gained" if on_a_path.flatten()[index] else "lost"] += 1
        weights = [name for name in masks if name.endswith("weight")]
        assert topology.parameters == sum(int(topology.effective[n].sum()) for n in weights)
        assert sum(sizes.values()) > 10

    def test_effective_weights_alone_are_the_same_network(self):
        model = resnet(3, 10, blocks=1, stem_width=4)
        masks = random_masks(model, 0.04)
        topology = measure_topology(model, masks, (3, 8, 8))
        kept = sum(int(mask.sum()) for name, mask in masks.items() if name.endswith("weight"))
        assert 0 < topology.parameters < kept
        again = measure_topology(model, topology.effective, (3, 8, 8))
        assert again == topology
        assert equal(again.effective, topology.effective)


class TestSkeleton:
    def test_it_is_linear_and_counts(self):
        model = resnet(3, 10, blocks=1, stem_width=2)
        skeleton = linear_skeleton(model, dense_masks(model))

        def walk(values):
            return skeleton(Signal.of(values)).sole

        first, second = torch.rand(2, 2, 3, 8, 8, dtype=torch.float64)
        torch.testing.assert_close(walk(first + 3 * second), walk(first) + 3 * walk(second))
        for name in dense_masks(model):
            parameter = skeleton.get_parameter(name)
            assert parameter.dtype == torch.float64
            assert (parameter == (0 if name.endswith("bias") else 1)).all(), name


ACTIVATIONS = (
    "Dropout ELU GELU Hardswish LeakyReLU Mish PReLU ReLU ReLU6 SELU SiLU Sigmoid Softplus Tanh"
)


class TestAnyModule:
    @pytest.mark.parametrize("name", ACTIVATIONS.split())
    def test_activations_do_not_matter(self, name):
        model, linear = (mlp(4, 5, 3, activation=kind) for kind in (getattr(nn, name), nn.Identity))
        masks = masks_of(model, torch.rand(5, 4) < 0.5, torch.rand(3, 5) < 0.5)
        assert measure_topology(model, masks, (4,)) == measure_topology(linear, masks, (4,))

    @pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.LayerNorm([4, 3, 3])], ids=str)
    def test_normalisations_do_not_matter(self, norm):
        model = nn.Sequential(nn.Conv2d(1, 4, 2), norm, nn.Flatten(), nn.Linear(36, 2))
        masks = dense_masks(model)
        masks["0.weight"][1:] = False
        topology = measure_topology(model, masks, (1, 4, 4))
        assert topology.channels == {"0.weight": 1, "3.weight": 2}
        assert paths(topology) == pytest.approx(2 * 9 * 4)

    @pytest.mark.parametrize("activation", [nn.GELU, nn.Sigmoid])
    def test_an_activation_may_be_used_twice(self, activation):
        shared = activation()
        model = nn.Sequential(nn.Linear(3, 4), shared, nn.Linear(4, 4), shared, nn.Linear(4, 2))
        masks = dense_masks(model)
        masks["2.weight"][:2] = False
        topology = measure_topology(model, masks, (3,))
        assert topology.channels == {"0.weight": 4, "2.weight": 2, "4.weight": 2}
        assert paths(topology) == pytest.approx(3 * 4 * 2 * 2, rel=1e-9)

    def test_functional_relu_and_flatten_are_fine(self):
        class Functional(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(1, 2, 2)
                self.head = nn.Linear(8, 3)

            def forward(self, images: Tensor) -> Tensor:
                return self.head(F.relu(self.conv(images)).flatten(1))

        model = Functional()
        topology = measure_topology(model, dense_masks(model), (1, 3, 3))
        assert paths(topology) == pytest.approx(4 * 8 * 3, rel=1e-9)
        assert topology.nodes == 5

    def test_the_model_and_masks_are_only_read(self):
        model = resnet(1, 10, blocks=1, stem_width=4).double().train()
        masks = random_masks(model, 0.5)
        copies, before = {name: mask.clone() for name, mask in masks.items()}, appearance(model)
        measure_topology(model, masks, (1, 8, 8))
        for parameter in linear_skeleton(model, masks).parameters():
            parameter.data.fill_(7)
        assert appearance(model) == before
        assert equal(masks, copies)

    def test_nothing_of_a_layer_that_is_not_used_lies_on_a_path(self):
        class Forgetful(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.used = nn.Linear(2, 2)
                self.forgotten = nn.Linear(2, 2)

            def forward(self, inputs: Tensor) -> Tensor:
                return self.used(inputs)

        model = Forgetful()
        topology = measure_topology(model, dense_masks(model), (2,))
        assert topology.channels == {"used.weight": 2, "forgotten.weight": 0}
        assert not topology.effective["forgotten.weight"].any()
        assert paths(topology) == pytest.approx(4)

    def test_a_frozen_network_has_paths(self):
        model = mlp(2, 3, 4).requires_grad_(False)
        assert measure_topology(model, dense_masks(model), (2,)).nodes == 7


class Between(nn.Module):
    """Two linear layers with an operation between them, and a parameter of its own that is 0."""

    def __init__(self, operation):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.scale, self.operation = nn.Parameter(torch.zeros(6)), operation

    def forward(self, inputs):
        return self.last(self.operation(self, self.first(inputs)))


class TestFunctions:
    """What a network does between its layers, as functions and with parameters of its own."""

    @pytest.mark.parametrize(
        "operation",
        [
            lambda _, x: torch.sigmoid(x),
            lambda _, x: x.sigmoid_(),
            lambda _, x: F.softplus(x),
            lambda _, x: torch.exp(x),
            lambda _, x: F.hardtanh(x),
            lambda _, x: F.softmax(x, dim=1),
            lambda _, x: x.softmax(-1),
            lambda _, x: F.normalize(x),
            lambda _, x: F.layer_norm(x, (6,)),
            lambda _, x: F.gelu(x) + 1,
            lambda _, x: 1 - torch.tanh(x),
            lambda _, x: F.dropout(x, 0.5),
            lambda own, x: own.scale * x,
            lambda own, x: x.mul(own.scale.view(1, 6)),
            lambda own, x: x + own.scale.exp(),
            lambda own, x: F.batch_norm(x, own.scale, own.scale + 1, own.scale, own.scale),
            lambda _, x: torch.cat([x[:, :2], x[:, 2:]], 1),
            lambda _, x: x.unflatten(1, (2, 3)).transpose(1, 2).transpose(1, 2).flatten(1),
            lambda _, x: torch.stack(x.chunk(2, 1), 1).flatten(1),
            lambda _, x: F.pad(x, (0, 1), value=3.0)[:, :6],
            lambda _, x: torch.clamp(x, min=0.1),
            lambda _, x: F.relu(x, inplace=True),
        ],
    )
    @pytest.mark.parametrize("seed", range(3))
    def test_they_hand_on_what_they_are_given(self, operation, seed):
        model = Between(operation)
        random = np.random.default_rng(seed)
        matrices = [random.random((6, 4)) < 0.4, random.random((3, 6)) < 0.4]
        matrices[0][0] = False  # a dead unit, which sigmoid and its kind would make live
        found = enumerate_paths(matrices)

        topology = measure_topology(model, masks_of(model, *matrices), (4,))

        assert paths(topology) == pytest.approx(len(found), rel=1e-9)
        assert topology.nodes == len({path[1] for path in found}) + len({p[2] for p in found})
        edges = {path[:2] for path in found}, {path[1:] for path in found}
        assert topology.parameters == len(edges[0]) + len(edges[1])

    @pytest.mark.parametrize(
        "product",
        [
            lambda one, other: one * other,
            lambda one, other: one.mul_(other),
            lambda one, other: torch.sigmoid(one).mul(other),
            lambda one, other: other * torch.tanh(one),
            lambda one, other: one / other,
            lambda one, other: F.glu(torch.cat([one, other], 1)),
            lambda one, other: (one.unsqueeze(2) @ other.unsqueeze(2).mT).diagonal(0, 1, 2),
            lambda one, other: torch.einsum("nc,nc->nc", one, other),
        ],
    )
    @pytest.mark.parametrize("seed", range(3))
    def test_a_product_has_the_paths_of_each_factor(self, product, seed):
        model = Between(lambda _, x: product(x, x.flip(1)))
        random = np.random.default_rng(seed)
        first, second = random.random((6, 4)) < 0.4, random.random((3, 6)) < 0.4
        first[0] = False
        topology = measure_topology(model, masks_of(model, first, second), (4,))
        # A unit of the product is fed by its own inputs, and by those of the unit opposite.
        joined = first.astype(int) + first[::-1]
        assert paths(topology) == pytest.approx((second @ joined).sum(), rel=1e-9)
        read = second.any(0)
        assert topology.parameters == (
            first[read | read[::-1]].sum() + second[:, joined.any(1)].sum()
        )

    @pytest.mark.parametrize("batch_first", [False, True])
    def test_attention_by_enumeration(self, batch_first):
        """softmax(Q Kᵀ) V of each head, as products of three factors each of which may vary."""

        class Attending(nn.Module):
            def __init__(self):
                super().__init__()
                self.attention = nn.MultiheadAttention(4, 2, batch_first=batch_first)

            def forward(self, tokens):
                return self.attention(tokens, tokens, tokens, need_weights=False)[0]

        model = Attending()
        masks = dense_masks(model)
        random = np.random.default_rng(0)
        projections = random.random((12, 4)) < 0.5
        output = random.random((4, 4)) < 0.5
        masks["attention.in_proj_weight"] = torch.from_numpy(projections)
        masks["attention.out_proj.weight"] = torch.from_numpy(output)
        tokens = 3
        topology = measure_topology(model, masks, (tokens, 4) if batch_first else (1, 4))
        if not batch_first:  # then the one token is the batch, and the positions are one
            tokens = 1
        query, key, value = projections.reshape(3, 2, 2, 4).sum(3)  # (heads, features) paths in
        found = 0
        for head, feature in itertools.product(range(2), range(2)):
            readers = output[:, 2 * head + feature].sum() * tokens
            # Σ over tokens of attention (queries + keys over the head's features), and of values.
            attended = tokens * (query[head].sum() + key[head].sum())
            found += readers * (attended + tokens * value[head, feature])
        assert paths(topology) == pytest.approx(found, rel=1e-9)

    def test_sums_of_two_signals_join_their_paths(self):
        model = Between(lambda _, x: x + torch.tanh(x).flip(1) - x.mean(1, keepdim=True) * 0)
        masks = masks_of(model, torch.eye(6)[:, :4], torch.eye(6)[:3])
        # Units 0 to 3 are reached, and outputs read units 0 to 2 and, flipped, 5 to 3.
        assert paths(measure_topology(model, masks, (4,))) == pytest.approx(3 + 1)

    @pytest.mark.parametrize(
        ("operation", "named"),
        [
            (lambda _, x: torch.maximum(x, x).scatter(1, torch.zeros(1, 1).long(), x), "'scatter'"),
            (lambda _, x: torch.where(x > 0, x, 0 * x), "'gt'"),
            (lambda _, x: x.sort(1).values, "'sort'"),
            (lambda _, x: torch.zeros(1, 6).add_(x), "'add_' to a constant"),
            (lambda _, x: x.detach(), "'detach'"),
            (lambda _, x: torch.fft.rfft(x).real, "'fft_rfft'"),
        ],
    )
    def test_what_is_neither_is_refused_by_name(self, operation, named):
        model = Between(operation)
        with pytest.raises(InputError, match=f"forward pass applies {named}"):
            measure_topology(model, dense_masks(model), (4,))

    @pytest.mark.parametrize(
        "pool",
        [
            lambda x: F.max_pool2d(x, 2),
            lambda x: torch.max_pool2d(x, 2, 2),
            lambda x: F.adaptive_max_pool2d(x, 2),
            lambda x: F.interpolate(x, size=(2, 2), mode="area"),
        ],
    )
    def test_functional_pools_average(self, pool):
        class Pooled(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.head = nn.Conv2d(1, 2, 1), nn.Linear(8, 3)

            def forward(self, images):
                return self.head(pool(self.conv(images)).flatten(1))

        model = Pooled()
        topology = measure_topology(model, dense_masks(model), (1, 4, 4))
        assert paths(topology) == pytest.approx(2 * 4 * 3)

    def test_operations_in_place_leave_other_signals_alone(self):
        def twice(_, x):
            y = torch.relu(x)
            y.mul_(0)
            return x + y

        model = Between(twice)
        assert paths(measure_topology(model, dense_masks(model), (4,))) == pytest.approx(4 * 6 * 3)

    def test_weights_computed_from_a_layers_own_are_refused(self):
        class Standardised(nn.Linear):
            def forward(self, inputs):
                return F.linear(inputs, self.weight - self.weight.mean(1, keepdim=True))

        model = nn.Sequential(Standardised(4, 3), nn.Linear(3, 2))
        masks = random_masks(model, 0.5)
        with pytest.raises(InputError, match="weights that it computes from the layers' own"):
            measure_topology(model, masks, (4,))

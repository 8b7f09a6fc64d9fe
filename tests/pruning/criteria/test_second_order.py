"""Fisher's and Hutchinson's scores against gradients one by one and the exact Hessian."""

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import appearance, conv_net, equal, normal, small_resnet
from torch import Tensor, nn
from torch.func import functional_call

from sculpt.errors import InputError
from sculpt.pruning.criteria.connection_sensitivity import connection_sensitivity, scoring_mode
from sculpt.pruning.criteria.fisher import fisher
from sculpt.pruning.criteria.grasp import grasp
from sculpt.pruning.criteria.hutchinson import hutchinson
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import Batches, PruningTask
from sculpt.pruning.warm_up import warmed_up

IMAGES = torch.randn(12, 1, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.arange(12) % 3


def in_batches(size: int, labels: Tensor = LABELS) -> Batches:
    return lambda: zip(IMAGES.split(size), labels.split(size), strict=True)


def task(model: nn.Module, size: int = 12, seed: int = 0) -> PruningTask:
    return PruningTask(model, 10, in_batches(size), torch.Generator().manual_seed(seed))


def loss_of(model: nn.Module, targets: str, temperature: float = 1.0) -> Any:
    """The mean cross-entropy of some images, in the fewest lines."""

    def mean_loss(rows: slice) -> Tensor:
        log_p = (model(IMAGES[rows]) / temperature).log_softmax(1)
        t = torch.full_like(log_p, 1 / 3) if targets == "uniform" else F.one_hot(LABELS[rows], 3)
        return -(t * log_p).sum(1).mean()

    return mean_loss


def gradients(model: nn.Module, value: Tensor) -> dict[str, Tensor]:
    parameters = prunable_parameters(model)
    found = torch.autograd.grad(value, list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


def tiny_mlp() -> nn.Module:
    """Build a network of 16 weights."""
    layers = nn.Linear(2, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False)
    return normal(nn.Sequential(*layers).double(), 0.7)


POINTS = torch.randn(12, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def exact_scores(targets: str, temperature: float, first_order: bool) -> dict[str, Tensor]:
    """Take the diagonal from the whole Hessian of the mean loss."""
    model = tiny_mlp()
    shapes = {name: p.shape for name, p in model.named_parameters()}
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])

    def mean_loss(vector: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes.values()])
        state = {name: part.view(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
        log_p = (functional_call(model, state, POINTS) / temperature).log_softmax(1)
        t = F.one_hot(LABELS % 2, 2) if targets == "gt" else torch.full_like(log_p, 1 / 2)
        return -(t * log_p).sum(1).mean()

    change = flat**2 / 2 * torch.autograd.functional.hessian(mean_loss, flat).diagonal()
    if first_order:
        change = change + flat * torch.autograd.functional.jacobian(mean_loss, flat)
    parts = change.abs().split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shapes[name]) for name, part in zip(shapes, parts, strict=True)}


def points(seed: int = 0) -> PruningTask:
    return PruningTask(
        tiny_mlp(), 10, lambda: [(POINTS, LABELS % 2)], torch.Generator().manual_seed(seed)
    )


class TestFisher:
    @pytest.mark.parametrize("first_order", [False, True])
    @pytest.mark.parametrize("targets", ["gt", "uniform"])
    @pytest.mark.parametrize("group", [1, 5])
    def test_it_is_the_mean_square_of_the_gradients_of_each_image(
        self, targets, first_order, group
    ):
        model = conv_net()
        scores = fisher(model, task(model), targets=targets, first_order=first_order, group=group)
        with scoring_mode(model, "identity"):
            mean_loss = loss_of(model, targets)
            parts = [slice(start, min(start + group, 12)) for start in range(0, 12, group)]
            each = [(part.stop - part.start, gradients(model, mean_loss(part))) for part in parts]
        for name, parameter in prunable_parameters(model).items():
            w = parameter.detach()
            expected = w**2 / 2 * sum(size * g[name] ** 2 for size, g in each) / 12
            if first_order:
                expected = (w * sum(size * g[name] for size, g in each) / 12 + expected).abs()
            torch.testing.assert_close(scores[name], expected)

    def test_the_batch_size_does_not_matter(self):
        model = conv_net()
        whole, parts = fisher(model, task(model)), fisher(model, task(model, 5))
        for name in whole:
            torch.testing.assert_close(parts[name], whole[name])

    def test_a_loss_of_ones_own_has_one_gradient_for_each_batch(self):
        model = conv_net()

        def own(network, batch):
            return network(batch).square().mean()

        batches = [(part, torch.zeros(len(part))) for part in IMAGES.split(4)]
        scores = fisher(model, PruningTask(model, 10, lambda: batches, loss=own))
        with scoring_mode(model, "identity"):
            each = [gradients(model, own(model, part)) for part, _ in batches]
        for name, parameter in prunable_parameters(model).items():
            expected = parameter.detach() ** 2 / 2 * sum(g[name] ** 2 for g in each) / 3
            torch.testing.assert_close(scores[name], expected)

    def test_squares_of_tiny_gradients_do_not_vanish(self):
        model = normal(nn.Linear(4, 3), std=1e-12)
        data = [(torch.full((2, 4), 1e-15), torch.tensor([0, 1]))]
        scores = fisher(model, PruningTask(model, 5, lambda: data))
        assert scores["weight"].all()


class TestHutchinson:
    @pytest.mark.parametrize("first_order", [False, True])
    @pytest.mark.parametrize("targets", ["gt", "uniform"])
    def test_probes_that_are_orthogonal_find_the_diagonal_exactly(
        self, monkeypatch, targets, first_order
    ):
        """As the 16 rows of a Hadamard matrix: all that is off the diagonal cancels."""
        hadamard = torch.ones(1, 1, dtype=torch.float64)
        for _ in range(4):
            hadamard = torch.kron(hadamard, torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double())
        entries = iter(hadamard.flatten().split(8))
        module = sys.modules["sculpt.pruning.criteria.hutchinson"]
        monkeypatch.setattr(module, "_signs", lambda weight, _: next(entries).view(weight.shape))
        options = {"targets": targets, "first_order": first_order, "temperature": 2.0}
        scores = hutchinson(tiny_mlp(), points(), probes=16, **options)
        for name, expected in exact_scores(targets, 2.0, first_order).items():
            torch.testing.assert_close(scores[name], expected)

    def test_drawn_probes_come_nearer_the_more_there_are(self):
        exact = torch.cat([s.flatten() for s in exact_scores("gt", 1.0, True).values()])
        errors = []
        for probes in (4, 400):
            options = {"first_order": True, "temperature": 1.0, "probes": probes}
            found = [hutchinson(tiny_mlp(), points(seed), **options) for seed in range(3)]
            flat = [torch.cat([s.flatten() for s in scores.values()]) for scores in found]
            errors.append(sum(float((f - exact).norm() / exact.norm()) for f in flat) / 3)
        assert errors[1] < 0.05
        assert errors[1] < errors[0] / 3, "by √100 in expectation"

    def test_where_weights_do_not_interact_one_probe_is_exact(self):
        """The Hessian is diagonal, of which every probe finds all."""
        model = nn.Linear(6, 1, bias=False).double()

        def own(network, batch):
            return (network.weight**3).sum() + 0 * network(batch).sum()

        batches = [(torch.ones(1, 6, dtype=torch.float64), torch.zeros(1))]
        given = PruningTask(model, 3, lambda: batches, loss=own)
        w = model.weight.detach()
        expected = (w**2 / 2 * 6 * w).abs()
        torch.testing.assert_close(hutchinson(model, given, probes=1)["weight"], expected)
        both = hutchinson(model, given, probes=1, first_order=True)["weight"]
        torch.testing.assert_close(both, (w * 3 * w**2 + 3 * w**3).abs())

    def test_a_linear_loss_has_no_curvature(self):
        model = nn.Linear(6, 1, bias=False).double()
        batches = [(torch.ones(1, 6, dtype=torch.float64), torch.zeros(1))]
        given = PruningTask(model, 3, lambda: batches, loss=lambda net, x: net(x).sum())
        assert not hutchinson(model, given)["weight"].any()
        assert hutchinson(model, given, first_order=True)["weight"].all()

    def test_batches_add_up(self):
        """The mean over all images is scored, whatever their batches are."""
        model = nn.Linear(6, 1, bias=False).double()
        rows = torch.rand(4, 6, dtype=torch.float64)

        def own(network, batch):
            return (network.weight**3).sum() * batch.sum() + 0 * network(batch).sum()

        def scores(size):
            batches = [(part, torch.zeros(len(part))) for part in rows.split(size)]
            found = hutchinson(model, PruningTask(model, 3, lambda: batches, loss=own), probes=1)
            return found["weight"] * len(batches)

        torch.testing.assert_close(scores(4), scores(1))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"probes": 0}, "probes must be at least 1 and temperature above 0, but got probes 0"),
            ({"temperature": 0.0}, r"temperature 0\.0"),
            ({"targets": "pred_raw"}, "targets must be one of gt, uniform"),
        ],
    )
    def test_options_out_of_range_are_refused(self, options, message):
        with pytest.raises(InputError, match=message):
            hutchinson(conv_net(), task(conv_net()), **options)


class TestWarmUp:
    @pytest.mark.parametrize(
        "criterion", [connection_sensitivity, fisher, grasp, hutchinson], ids=lambda c: c.__name__
    )
    def test_scores_are_those_of_a_network_with_the_statistics_of_the_images(self, criterion):
        model, known = conv_net(), conv_net()
        before = appearance(model)
        scores = criterion(model, task(model, 5), batch_norm="warm_up")
        assert appearance(model) == before
        hidden = known[0](IMAGES).detach()
        parts = [part.transpose(0, 1).flatten(1) for part in hidden.split(5)]
        known[1].running_mean.copy_(torch.stack([part.mean(1) for part in parts]).mean(0))
        known[1].running_var.copy_(torch.stack([part.var(1) for part in parts]).mean(0))
        expected = criterion(known, task(known, 5))
        for name in scores:
            torch.testing.assert_close(scores[name], expected[name])
        assert not equal(scores, criterion(model, task(model, 5)))

    @pytest.mark.parametrize("training", [True, False])
    def test_the_network_is_left_as_it_was_where_images_fail(self, training):
        model = small_resnet().train(training)
        before = appearance(model)

        def failing():
            yield torch.randn(4, 1, 8, 8), torch.arange(4)
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            fisher(model, PruningTask(model, 10, failing), batch_norm="warm_up")
        assert appearance(model) == before

    def test_a_user_s_own_loss_passes_the_images(self):
        model, seen = conv_net().eval(), []

        def own(network, batch):
            seen.append(batch["x"].shape[0])
            return network(batch["x"]).sum()

        batches = [({"x": part}, torch.zeros(len(part))) for part in IMAGES.split(6)]
        with warmed_up(model, PruningTask(model, 10, lambda: batches, loss=own)):
            assert seen == [6, 6]
            assert not model[1].training
            assert not torch.equal(model[1].running_mean, torch.full((2,), 0.5).double())
        assert torch.equal(model[1].running_mean, torch.full((2,), 0.5).double())

    def test_networks_without_batch_norms_read_no_images(self):
        model = nn.Linear(3, 2)

        def never():
            raise AssertionError

        with warmed_up(model, PruningTask(model, 3, never)):
            pass

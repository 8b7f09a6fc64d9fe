"""GraSP against finite differences, and the direction in which its scores point."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import conv_net, normal
from torch import Tensor, nn

from sculpt.errors import InputError
from sculpt.pruning.criteria.connection_sensitivity import scoring_mode
from sculpt.pruning.criteria.grasp import grasp
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import Batches, PruningTask

IMAGES = torch.randn(12, 1, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.arange(12) % 3


def in_batches(size: int, labels: Tensor = LABELS) -> Batches:
    return lambda: zip(IMAGES.split(size), labels.split(size), strict=True)


def score(model: nn.Module, size: int = 12, **options: Any) -> dict[str, Tensor]:
    return grasp(model, PruningTask(model, 10, in_batches(size)), **options)


def mean_gradients(model: nn.Module, size: int, targets: str, temperature: float) -> list[Tensor]:
    """Return the gradient of the mean loss, batch by batch, by the parameters' order."""
    weights = list(prunable_parameters(model).values())
    total = torch.zeros((), dtype=torch.float64)
    for images, labels in in_batches(size)():
        log_p = (model(images) / temperature).log_softmax(1)
        t = torch.full_like(log_p, 1 / 3) if targets == "uniform" else F.one_hot(labels, 3)
        total = total - (t * log_p).sum() / len(IMAGES)
    return list(torch.autograd.grad(total, weights))


def products(
    model: nn.Module, size: int, targets: str, temperature: float, batch_norm: Any
) -> dict[str, Tensor]:
    """Return θ ⊙ Hg, with H g = (∇L(θ + εg) − ∇L(θ − εg)) / 2ε."""
    parameters = prunable_parameters(model)
    with scoring_mode(model, batch_norm):
        gradient = mean_gradients(model, size, targets, temperature)
        step = 1e-4 / max(float(g.abs().max()) for g in gradient)
        moved = []
        for sign in (1, -2, 1):  # there, to the other side, and back
            with torch.no_grad():
                for parameter, g in zip(parameters.values(), gradient, strict=True):
                    parameter.add_(g, alpha=sign * step)
            moved.append(mean_gradients(model, size, targets, temperature))
    return {
        name: parameter.detach() * (up - down) / (2 * step)
        for (name, parameter), up, down in zip(parameters.items(), moved[0], moved[1], strict=True)
    }


@pytest.mark.parametrize("batch_norm", ["identity", "batch"])
@pytest.mark.parametrize("targets", ["gt", "uniform"])
@pytest.mark.parametrize("size", [12, 5])
def test_scores_are_weights_times_hessian_times_gradient_up_to_a_shift(size, targets, batch_norm):
    model = conv_net()
    options = {"targets": targets, "temperature": 3.0, "batch_norm": batch_norm}
    scores = score(model, size, **options)
    expected = products(conv_net(), size, **options)
    flat = torch.cat([tensor.flatten() for tensor in scores.values()])
    wanted = torch.cat([tensor.flatten() for tensor in expected.values()])
    span = wanted.max() - wanted.min()
    torch.testing.assert_close(
        (flat - flat.min()) / span, (wanted - wanted.min()) / span, rtol=0, atol=1e-6
    )
    assert 0 < flat.min() < 1e-5 * span
    assert torch.equal(flat.argsort()[-20:], wanted.argsort()[-20:])
    assert wanted.min() < 0 < wanted.max()  # or a shift would not have been needed


def test_what_is_kept_last_leaves_the_largest_gradient():
    """Removing the weight of the lowest score raises ‖g‖², of the highest lowers it."""
    model = conv_net()
    with torch.no_grad():
        model[4].weight.mul_(0.05)  # small weights, for which the first order holds
    layer, scores = model[4].weight, score(model, temperature=1.0)["4.weight"].flatten()

    def gradient_norm() -> float:
        with scoring_mode(model, "identity"):
            return sum(float(g.pow(2).sum()) for g in mean_gradients(model, 12, "gt", 1.0))

    norms = []
    for index in (int(scores.argmin()), int(scores.argmax())):
        saved = layer.detach().clone()
        with torch.no_grad():
            layer.view(-1)[index] = 0
        norms.append(gradient_norm())
        with torch.no_grad():
            layer.copy_(saved)
    assert norms[0] > gradient_norm() > norms[1]


def test_only_weights_that_are_0_score_0():
    model = conv_net()
    nn.init.zeros_(model[4].bias)
    with torch.no_grad():
        model[0].weight[0, 0, 1, 1] = 0
    scores = score(model)
    assert not scores["4.bias"].any()
    assert int((scores["0.weight"] == 0).sum()) == 1
    assert scores["4.weight"].all()


def test_a_network_that_learns_nothing_scores_0_everywhere():
    assert not any(tensor.any() for tensor in score(normal(conv_net(), std=0)).values())


def test_an_image_that_is_not_finite_is_noticed_where_it_matters():
    images = IMAGES.clone()
    images[0, 0, 0, 0] = torch.nan
    model = conv_net()
    scores = grasp(model, PruningTask(model, 10, lambda: [(images, LABELS)]))
    assert scores["0.weight"].isnan().any()


def test_labels_must_be_there_for_gt_and_are_not_read_for_uniform():
    def unlabelled() -> Iterator[tuple[Tensor, Tensor]]:
        return iter([(IMAGES, torch.full((12,), -1))])

    model = conv_net()
    grasp(model, PruningTask(model, 10, unlabelled), targets="uniform")
    with pytest.raises(InputError, match="targets='gt' must come with the labels"):
        grasp(model, PruningTask(model, 10, unlabelled))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": "pred_raw"}, "targets must be one of gt, uniform, but got 'pred_raw'"),
        (
            {"batch_norm": "train"},
            "batch_norm must be one of identity, batch, warm_up, but got 'train'",
        ),
        ({"temperature": 0.0}, r"temperature must be above 0, but got 0\.0"),
        ({"temperature": float("nan")}, "temperature must be above 0, but got nan"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        score(conv_net(), **options)


@pytest.mark.parametrize("size", [1, 5])
def test_the_gradient_is_of_all_images_and_not_of_each_batch(size):
    whole, parts = score(conv_net()), score(conv_net(), size)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-7, atol=1e-12)

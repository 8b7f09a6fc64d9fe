"""Connection sensitivity against Eq. 1: the loss as a function of a factor on one weight."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from networks import appearance, conv_net, normal
from torch import Tensor, nn

import sculpt
from sculpt.errors import InputError, NumericsError
from sculpt.pruning.criteria.connection_sensitivity import connection_sensitivity, scoring_mode
from sculpt.pruning.task import Batches, PruningTask

CLASSES = 3


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dataset(count: int = 12, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    images = torch.randn(count, 1, 5, 5, generator=stream(1), dtype=dtype)
    return images, torch.randint(0, CLASSES, (count,), generator=stream(2))


def in_batches(images: Tensor, labels: Tensor, size: int) -> Batches:
    return lambda: zip(images.split(size), labels.split(size), strict=True)


def score(model: nn.Module, data: Batches, **options: Any) -> dict[str, Tensor]:
    return connection_sensitivity(model, PruningTask(model, 0, data), **options)


def mlp() -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(25, 4), nn.Tanh(), nn.Linear(4, CLASSES)]
    return normal(nn.Sequential(*layers).double())


def assert_changes(scores: dict[str, Tensor], model: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Check scores against central differences: |dL/dc| of each weight's factor c, normalised."""
    change, step = {}, 1e-5
    for name in scores:
        weights = model.get_parameter(name).detach().view(-1)
        change[name] = torch.zeros_like(weights)
        for index, weight in enumerate(weights.tolist()):
            losses = []
            for c in (1 + step, 1 - step):
                weights[index] = c * weight
                losses.append(loss().item())
            weights[index] = weight
            change[name][index] = abs(losses[0] - losses[1]) / (2 * step)
    total = sum(float(tensor.sum()) for tensor in change.values())
    for name, tensor in change.items():
        found, expected = scores[name].flatten(), tensor / total
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize("size", [12, 5])
@pytest.mark.parametrize("targets", ["uniform", "gt"])
@pytest.mark.parametrize("batch_norm", ["identity", "batch"])
@pytest.mark.parametrize("build", [mlp, conv_net])
def test_scores_are_the_change_of_the_loss_when_a_connection_is_scaled(
    build, batch_norm, targets, size
):
    """The mean of −Σ_c t_c · log p_c over all images; uniform targets read no labels."""
    model = build()
    images, labels = dataset()
    given = torch.full_like(labels, -1) if targets == "uniform" else labels
    data = in_batches(images, given, size)
    scores = score(model, data, targets=targets, batch_norm=batch_norm)

    def loss() -> Tensor:
        model.train(batch_norm == "batch")
        log_p = torch.cat([model(batch) for batch in images.split(size)]).log_softmax(1)
        t = torch.full_like(log_p, 1 / CLASSES)
        if targets == "gt":
            t = torch.eye(CLASSES, dtype=log_p.dtype)[labels]
        return -(t * log_p).sum(1).mean()

    assert_changes(scores, model, loss)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_gradients_of_opposite_sign_cancel_before_the_absolute_value(size):
    """Equal logits: the same input under both labels pulls each weight by ½ and by −½."""
    model = nn.Linear(2, 2, bias=False)
    nn.init.ones_(model.weight)
    images = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    labels = torch.tensor([0, 1, 0])
    scores = score(model, in_batches(images, labels, size), targets="gt")
    # Only the third image's gradient is left, on the first input.
    assert scores["weight"].tolist() == [[0.5, 0.0], [0.5, 0.0]]


@pytest.mark.parametrize("batch_norm", ["identity", "batch"])
def test_dropout_is_off_in_both_modes(batch_norm):
    model = conv_net()
    dropping = nn.Sequential(*model[:4], nn.Dropout(0.9), model[4]).train()
    data = in_batches(*dataset(), 4)
    expected = score(model, data, batch_norm=batch_norm)["0.weight"]
    assert torch.equal(score(dropping, data, batch_norm=batch_norm)["0.weight"], expected)


def test_batch_mode_changes_no_statistics_or_flags_even_when_the_data_fail():
    model = conv_net().train()
    before = appearance(model)

    def failing() -> Iterator[tuple[Tensor, Tensor]]:
        yield dataset()
        raise OSError("disk full")

    score(model, in_batches(*dataset(), 4), batch_norm="batch")
    assert appearance(model) == before
    with pytest.raises(OSError, match="disk full"):
        score(model, failing, batch_norm="batch")
    assert appearance(model) == before


def test_a_norm_without_statistics_stays_one():
    norm = nn.BatchNorm2d(2, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), norm)
    with scoring_mode(model, "batch"):
        assert norm.training
    assert norm.track_running_stats is False


def test_a_network_without_any_gradient_scores_zero_everywhere():
    model = normal(mlp(), std=0)
    assert not any(tensor.any() for tensor in score(model, in_batches(*dataset(), 4)).values())


def test_an_image_that_is_not_finite_is_noticed():
    images, labels = dataset()
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(NumericsError, match=r"1\.weight"):
        score(mlp(), in_batches(images, labels, 4))


def test_the_layer_that_overflows_is_named_and_no_other():
    model = mlp().float()
    with torch.no_grad():
        # Finite logits and gradients; only this layer's |w ⊙ g| is beyond float32.
        model[3].weight.mul_(1e-30)
        model[3].bias.copy_(torch.tensor([3e38, 0.0, 0.0]))
    with pytest.raises(NumericsError, match=r"scores of 3\.bias are not"):
        score(model, in_batches(*dataset(dtype=torch.float32), 4), targets="uniform")


def test_bfloat16_ranks_nearly_alike_and_adds_up_in_float32():
    model, data = mlp().float(), in_batches(*dataset(dtype=torch.float32), 4)
    exact, rough = (score(model, data, precision=p) for p in ("float32", "bfloat16"))
    assert any(not torch.equal(exact[name], rough[name]) for name in exact)
    for name, expected in exact.items():
        assert rough[name].dtype == torch.float32
        torch.testing.assert_close(rough[name], expected, rtol=0.1, atol=0.02 * expected.max())


TARGETS = "uniform, gt, pred_softmax, pred_raw, jacobian_1, jacobian_2"


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [
        ("precision", "float16", "float32, bfloat16"),
        ("targets", "labels", TARGETS),
        ("batch_norm", "train", "identity, batch, warm_up"),
    ],
)
def test_a_word_that_is_no_option_is_refused(option, value, known):
    with pytest.raises(InputError, match=f"{option} must be one of {known}, but got '{value}'"):
        score(mlp(), in_batches(*dataset(), 4), **{option: value})


class TestSurrogates:
    """Targets that the network makes up itself, against Eq. 1 by finite differences."""

    @staticmethod
    def loss(model: nn.Module, images: Tensor, targets: str, average: Tensor) -> Tensor:
        if targets == "pred_softmax":
            prediction = model(images).softmax(1).mean(0)
            return -(prediction * prediction.log()).sum()
        if targets == "pred_raw":
            return -(model(images).log_softmax(1) * average).sum()
        jacobian = torch.autograd.functional.jacobian
        jacobians = [jacobian(lambda x: model(x[None])[0], image).flatten() for image in images]
        return torch.stack(jacobians).norm(p=int(targets[-1]), dim=1).sum()

    @pytest.mark.slow
    @pytest.mark.parametrize("targets", ["pred_softmax", "pred_raw", "jacobian_1", "jacobian_2"])
    def test_scores_are_the_change_of_the_loss(self, targets):
        model = mlp()
        images, _ = dataset()
        no_labels = torch.full((12,), -1)
        scores = score(model, in_batches(images, no_labels, 5), targets=targets)
        average = model(images).mean(0).detach()
        assert_changes(scores, model, lambda: self.loss(model, images, targets, average))
        assert not images.requires_grad
        assert images.grad is None

    def test_the_last_bias_does_not_move_the_jacobian(self):
        scores = score(mlp(), in_batches(*dataset(), 4), targets="jacobian_2")
        assert not scores["3.bias"].any()
        assert scores["3.weight"].all()


@pytest.mark.parametrize("lowest", [-1, -5])
def test_labels_below_0_are_no_classes(lowest):
    images, labels = dataset()
    labels[3] = lowest
    with pytest.raises(InputError, match="labels of the inputs, but there are none"):
        score(mlp(), lambda: [(images, labels)], targets="gt")


def test_a_batch_without_images_is_none():
    images, labels = dataset()
    with pytest.raises(InputError, match="must see at least one image"):
        score(mlp(), lambda: [(images[:0], labels[:0])])


def test_a_class_that_no_image_may_have():
    """Its share of the average prediction is 0 in float32."""
    model = nn.Linear(2, 3, bias=False)
    model.weight.data = torch.tensor([[100.0, 0.1], [99.5, 0.2], [-100.0, 1.0]])
    masks = sculpt.prune(model, 2, inputs=torch.ones(4, 2), targets="pred_softmax")
    assert sum(int(mask.sum()) for mask in masks.values()) == 2

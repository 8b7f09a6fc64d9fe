"""Connection sensitivity against Eq. 1: the loss as a function of a factor on one weight."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sculpt.errors import InputError, NumericsError
from sculpt.models.resnet import resnet
from sculpt.pruning.criteria.connection_sensitivity import connection_sensitivity, scoring_mode
from sculpt.pruning.initializers import initialize
from sculpt.pruning.task import Batches, PruningTask

CLASSES = 3


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dataset(count: int = 12, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    images = torch.randn(count, 1, 5, 5, generator=stream(1), dtype=dtype)
    return images, torch.randint(0, CLASSES, (count,), generator=stream(2))


def in_batches(images: Tensor, labels: Tensor, size: int) -> Batches:
    return lambda: zip(images.split(size), labels.split(size), strict=True)


def score(model: nn.Module, data: Batches, **options: Any) -> dict[str, Tensor]:
    return connection_sensitivity(model, PruningTask(model, 0, data), **options)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(25, 4), nn.Tanh(), nn.Linear(4, CLASSES))


def conv_net() -> nn.Module:
    """With running statistics far from fresh, so that it matters who reads them."""
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(0.5)
    norm.running_var.fill_(4.0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.Tanh(), nn.Flatten(), nn.Linear(18, CLASSES))


def randomised(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=stream(3))
    return model


def loss_in_numbers(model: nn.Module, images: Tensor, labels: Tensor, targets: str) -> float:
    """Return the mean loss, written out: −Σ_c t_c · log p_c."""
    log_p = model(images).log_softmax(1)
    t = torch.full_like(log_p, 1 / CLASSES)
    if targets == "gt":
        t = torch.eye(CLASSES, dtype=log_p.dtype)[labels]
    return float(-(t * log_p).sum(1).mean())


@pytest.mark.parametrize("targets", ["uniform", "gt"])
@pytest.mark.parametrize("batch_norm", ["identity", "batch"])
@pytest.mark.parametrize("build", [mlp, conv_net])
def test_scores_are_the_change_of_the_loss_when_a_connection_is_scaled(
    build: Callable[[], nn.Module], batch_norm: Any, targets: Any
):
    model = randomised(build().double())
    images, labels = dataset(dtype=torch.float64)
    scores = score(
        model, in_batches(images, labels, len(images)), targets=targets, batch_norm=batch_norm
    )

    model.train(batch_norm == "batch")
    change = {}
    step = 1e-5
    with torch.no_grad():
        for name in scores:
            weights = model.get_parameter(name).view(-1)
            change[name] = torch.zeros_like(weights)
            for index, weight in enumerate(weights.tolist()):
                losses = []
                for c in (1 + step, 1 - step):
                    weights[index] = c * weight
                    losses.append(loss_in_numbers(model, images, labels, targets))
                weights[index] = weight
                change[name][index] = abs(losses[0] - losses[1]) / (2 * step)

    total = sum(float(tensor.sum()) for tensor in change.values())
    for name, tensor in change.items():
        torch.testing.assert_close(
            scores[name].flatten(), tensor / total, rtol=1e-6, atol=1e-9, msg=name
        )


@pytest.mark.parametrize("targets", ["uniform", "gt"])
def test_in_identity_mode_the_batch_size_does_not_matter(targets: Any):
    model = randomised(conv_net().double())
    images, labels = dataset(dtype=torch.float64)
    whole = score(model, in_batches(images, labels, 12), targets=targets)

    for size in (1, 5, 8):
        scores = score(model, in_batches(images, labels, size), targets=targets)
        for name in whole:
            torch.testing.assert_close(scores[name], whole[name], rtol=1e-9, atol=1e-12)


def test_in_batch_mode_it_does():
    model = randomised(conv_net().double())
    images, labels = dataset(dtype=torch.float64)
    whole, halves = (
        score(model, in_batches(images, labels, size), batch_norm="batch") for size in (12, 6)
    )
    assert (whole["0.weight"] - halves["0.weight"]).abs().max() > 1e-4


@pytest.mark.parametrize("size", [1, 2, 3])
def test_gradients_of_opposite_sign_cancel_before_the_absolute_value(size: int):
    """Equal logits: the same input under both labels pulls each weight by ½ and by −½."""
    model = nn.Linear(2, 2, bias=False)
    nn.init.ones_(model.weight)
    images = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    labels = torch.tensor([0, 1, 0])

    scores = score(model, in_batches(images, labels, size), targets="gt")

    # Only the third image's gradient is left, on the first input.
    assert scores["weight"].tolist() == [[0.5, 0.0], [0.5, 0.0]]


@pytest.mark.parametrize("batch_norm", ["identity", "batch"])
@pytest.mark.parametrize("targets", ["uniform", "gt"])
def test_scores_sum_to_1(targets: Any, batch_norm: Any):
    model = resnet(1, CLASSES, blocks=1, stem_width=4)
    initialize(model, "ldi", seed=0)
    options = {"targets": targets, "batch_norm": batch_norm}
    scores = score(model, in_batches(*dataset(), 4), **options)
    assert sum(float(s.double().sum()) for s in scores.values()) == pytest.approx(1, abs=1e-6)


def test_repeating_the_images_changes_nothing():
    model = randomised(mlp().double())
    images, labels = dataset(dtype=torch.float64)
    once = score(model, in_batches(images, labels, 12), targets="gt")
    twice = score(model, in_batches(images.repeat(2, 1, 1, 1), labels.repeat(2), 12), targets="gt")
    for name in once:
        torch.testing.assert_close(once[name], twice[name], rtol=1e-12, atol=0)


def test_biases_that_are_zero_score_zero():
    model = resnet(1, CLASSES, blocks=1, stem_width=4)
    initialize(model, "ldi", seed=0)
    for name, tensor in score(model, in_batches(*dataset(), 12)).items():
        assert tensor.any() == name.endswith("weight"), name


@pytest.mark.parametrize("batch_norm", ["identity", "batch"])
def test_uniform_targets_do_not_read_the_labels(batch_norm: Any):
    model = randomised(conv_net())
    images, labels = dataset()
    impossible = torch.full_like(labels, -1)

    with_labels = score(model, in_batches(images, labels, 4), batch_norm=batch_norm)
    without = score(model, in_batches(images, impossible, 4), batch_norm=batch_norm)

    for name in with_labels:
        assert torch.equal(with_labels[name], without[name]), name


def test_ground_truth_targets_do():
    model = randomised(conv_net())
    images, labels = dataset()
    uniform, right, wrong = (
        score(model, in_batches(images, given, 4), targets=targets)["4.weight"]
        for targets, given in (("uniform", labels), ("gt", labels), ("gt", (labels + 1) % CLASSES))
    )
    assert (right - uniform).abs().max() > 1e-3
    assert (right - wrong).abs().max() > 1e-3


def test_the_defaults_are_unsupervised_and_identity():
    model, data = randomised(conv_net()), in_batches(*dataset(), 4)
    default = score(model, data)
    stated = score(model, data, targets="uniform", batch_norm="identity")
    for name in default:
        assert torch.equal(default[name], stated[name])


def test_identity_mode_reads_the_running_statistics_and_batch_mode_does_not():
    data = in_batches(*dataset(), 4)
    moved, fresh = randomised(conv_net()), randomised(conv_net())
    fresh[1].reset_running_stats()

    identity = [score(model, data)["0.weight"] for model in (moved, fresh)]
    batch = [score(model, data, batch_norm="batch")["0.weight"] for model in (moved, fresh)]

    assert not torch.allclose(*identity)
    assert torch.equal(*batch)
    assert not torch.allclose(identity[1], batch[1])


def test_with_fresh_statistics_identity_mode_leaves_signals_alone():
    """As in the authors' code: the network without its batch norm scores the same."""
    model = randomised(conv_net().double())
    model[1].reset_parameters()
    without = nn.Sequential(model[0], nn.Identity(), *model[2:])
    data = in_batches(*dataset(dtype=torch.float64), 4)

    scores, expected = score(model, data), score(without, data)

    for name in expected:  # up to the norm's epsilon, 1e-5 beside a variance of 1
        torch.testing.assert_close(scores[name], expected[name], rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("batch_norm", ["identity", "batch"])
def test_dropout_is_off_in_both_modes(batch_norm: Any):
    model = randomised(conv_net())
    dropping = nn.Sequential(*model[:4], nn.Dropout(0.9), model[4]).train()
    data = in_batches(*dataset(), 4)

    expected = score(model, data, batch_norm=batch_norm)["0.weight"]

    assert torch.equal(score(dropping, data, batch_norm=batch_norm)["0.weight"], expected)


@pytest.mark.parametrize("batch_norm", ["identity", "batch"])
def test_no_mode_changes_statistics_or_flags(batch_norm: Any):
    model = randomised(conv_net()).train()
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}

    score(model, in_batches(*dataset(), 4), batch_norm=batch_norm)

    assert all(module.training for module in model.modules())
    assert model[1].track_running_stats
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[key]), key


@pytest.mark.parametrize("batch_norm", ["identity", "batch"])
def test_what_was_changed_is_restored_even_when_the_data_fail(batch_norm: Any):
    model = randomised(conv_net()).train()

    def failing() -> Iterator[tuple[Tensor, Tensor]]:
        yield dataset()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        score(model, failing, batch_norm=batch_norm)

    assert all(module.training for module in model.modules())
    assert model[1].track_running_stats


def test_a_norm_without_statistics_stays_one():
    norm = nn.BatchNorm2d(2, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), norm)
    with scoring_mode(model, "batch"):
        assert norm.training
    assert norm.track_running_stats is False


def test_a_network_without_any_gradient_scores_zero_everywhere():
    model = mlp()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    for tensor in score(model, in_batches(*dataset(), 4)).values():
        assert not tensor.any()


def test_an_image_that_is_not_finite_is_noticed():
    images, labels = dataset()
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(NumericsError, match=r"1\.weight"):
        score(randomised(mlp()), in_batches(images, labels, 4))


def test_the_layer_that_overflows_is_named_and_no_other():
    model = randomised(mlp())
    with torch.no_grad():
        # Finite logits and gradients; only this layer's |w ⊙ g| is beyond float32.
        model[3].weight.mul_(1e-30)
        model[3].bias.copy_(torch.tensor([3e38, 0.0, 0.0]))
    with pytest.raises(NumericsError, match=r"scores of 3\.bias are not"):
        score(model, in_batches(*dataset(), 4), targets="uniform")


def test_bfloat16_ranks_nearly_alike_and_adds_up_in_float32():
    model = randomised(mlp())
    exact, rough = (
        score(model, in_batches(*dataset(), 4), precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert any(not torch.equal(exact[name], rough[name]) for name in exact)
    for name, expected in exact.items():
        assert rough[name].dtype == torch.float32
        torch.testing.assert_close(rough[name], expected, rtol=0.1, atol=0.02 * expected.max())


def test_no_images_are_refused():
    with pytest.raises(InputError, match="at least one image, but got none"):
        score(mlp(), list)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"precision": "float16"},
            "precision must be one of float32, bfloat16, but got 'float16'",
        ),
        (
            {"targets": "labels"},
            "targets must be one of uniform, gt, pred_softmax, pred_raw, jacobian_1, jacobian_2, "
            "but got 'labels'",
        ),
        ({"batch_norm": "train"}, "batch_norm must be one of identity, batch, but got 'train'"),
    ],
)
def test_a_word_that_is_no_option_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        score(mlp(), in_batches(*dataset(), 4), **options)


class TestSurrogates:
    """Targets that the network makes up itself, against Eq. 1 by finite differences."""

    @staticmethod
    def loss(model: nn.Module, images: Tensor, targets: str, average: Tensor) -> Tensor:
        if targets == "pred_softmax":
            prediction = model(images).softmax(1).mean(0)
            return -(prediction * prediction.log()).sum()
        if targets == "pred_raw":
            return -(model(images).log_softmax(1) * average).sum()
        jacobians = torch.stack(
            [
                torch.autograd.functional.jacobian(lambda x: model(x[None])[0], image).flatten()
                for image in images
            ]
        )
        return jacobians.norm(p=int(targets[-1]), dim=1).sum()

    @pytest.mark.parametrize("targets", ["pred_softmax", "pred_raw", "jacobian_1", "jacobian_2"])
    @pytest.mark.parametrize("batch", [12, 5])
    def test_scores_are_the_change_of_the_loss(self, targets: Any, batch: int):
        model = randomised(mlp().double())
        images, _ = dataset(dtype=torch.float64)
        no_labels = torch.full((12,), -1)

        scores = score(model, in_batches(images, no_labels, batch), targets=targets)

        with torch.no_grad():
            average = model(images).mean(0)
        change, step = {}, 1e-6
        for name, parameter in model.named_parameters():
            change[name] = torch.zeros_like(parameter)
            for index in range(parameter.numel()):
                value = parameter.data.view(-1)[index].item()
                losses = []
                for sign in (1, -1):
                    parameter.data.view(-1)[index] = value * (1 + sign * step)
                    losses.append(self.loss(model, images, targets, average).item())
                parameter.data.view(-1)[index] = value
                change[name].view(-1)[index] = (losses[0] - losses[1]) / (2 * step)
        total = sum(tensor.abs().sum() for tensor in change.values())
        for name, tensor in change.items():
            torch.testing.assert_close(scores[name], tensor.abs() / total, rtol=1e-4, atol=1e-7)

    def test_the_last_bias_does_not_move_the_jacobian(self):
        model = randomised(mlp())
        images, labels = dataset()
        scores = score(model, in_batches(images, labels, 4), targets="jacobian_2")
        assert not scores["3.bias"].any()
        assert scores["3.weight"].all()

    @pytest.mark.parametrize("targets", ["jacobian_1", "jacobian_2"])
    def test_the_images_are_not_asked_for_gradients_afterwards(self, targets: Any):
        model = randomised(mlp())
        images, labels = dataset()
        score(model, lambda: [(images, labels)], targets=targets)
        assert not images.requires_grad
        assert images.grad is None

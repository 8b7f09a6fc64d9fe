"""The opponent is a fair one: the same sums as sculpt's own loop, in another style."""

import multiprocessing
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from small_training import make_network
from torch import Tensor
from torch.utils.data import Sampler

from sculpt.benchmark.race import Effort, race, standard_opponent
from sculpt.benchmark.standard_loop import PillowImages, train_standard
from sculpt.config import Training
from sculpt.data import ImageSet, make_splits
from sculpt.data.digits import Digits
from sculpt.errors import SculptError
from sculpt.training.loop import train
from sculpt.training.loss_and_error import evaluate

SAME_ORDER: dict[str, object] = {"precision": "float32", "batch_size": 50, "epochs": 3}


class Replayed(Sampler[int]):
    """The order that a network was trained in, epoch after epoch."""

    def __init__(self, batches: list[Tensor], images: ImageSet) -> None:
        known = images.inputs().flatten(1)
        self._order = [
            int((known == image.flatten()).all(1).nonzero()[0])
            for batch in batches
            for image in batch
        ]
        self._epoch, self._start = len(images) // 50 * 50, 0

    def __iter__(self) -> Iterator[int]:
        begin, self._start = self._start, self._start + self._epoch
        return iter(self._order[begin : self._start])

    def __len__(self) -> int:
        return self._epoch


@pytest.fixture(scope="module")
def splits():
    """160 images to train on, which 50 do not divide, and 40 to validate on."""
    return make_splits(Digits().read(), train_images=200, validation_fraction=0.2)


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "constant", "weight_decay": 0.0, "momentum": 0.0},
        {"schedule": "one_cycle", "nesterov": True, "label_smoothing": 0.1, "weight_decay": 0.01},
        {"schedule": "step", "max_gradient_norm": 0.5},
    ],
    ids=["plain", "one_cycle", "clipped"],
)
def test_both_loops_train_to_the_same_losses(splits, density, changes):
    """Step by step on the same batches, where nothing is augmented."""
    recipe = Training.model_validate(SAME_ORDER | {"learning_rate": 0.05} | changes)
    model, masks = make_network(density)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    batches: list[Tensor] = []
    hook = model.register_forward_pre_hook(
        lambda module, given: batches.append(given[0].clone()) if module.training else None
    )
    ours = train(model, masks, splits, recipe, seed=3).history
    hook.remove()
    model.load_state_dict(start)
    order = Replayed(batches, splits.train)
    theirs, rates = train_standard(model, masks, splits.train, recipe, order=order)
    assert len(ours) == len(rates) == 3
    assert ours[0].train_loss != pytest.approx(ours[2].train_loss, rel=0.01), "it learns"
    loss, error = evaluate(theirs, splits.validation)
    assert loss == pytest.approx(ours[-1].val_loss, rel=1e-5)
    assert error == pytest.approx(ours[-1].val_error)
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name]), "the given network must be left as it is"


def test_images_come_as_torchvision_s_sets_give_them(splits):
    images = splits.train
    assert [label for _, label in PillowImages(images, lambda image: image)] == (
        images.labels.tolist()
    )
    image, _ = PillowImages(images, lambda image: image)[7]
    assert (image.mode, image.size) == ("L", (8, 8))
    assert np.array_equal(np.asarray(image), images.images[7, 0].numpy())


def test_augmented_images_can_be_trained_on(splits):
    recipe = Training.model_validate(
        SAME_ORDER | {"epochs": 1, "translate": 1, "flip": True, "cutout": 3}
    )
    model, masks = make_network(0.5)
    trained, (rate,) = train_standard(model, masks, splits.train, recipe)
    assert rate > 0
    assert 0 < evaluate(trained, splits.validation)[1] <= 1


@pytest.mark.slow
def test_a_race_leaves_the_network_as_it_is_and_takes_turns(splits):
    recipe = Training.model_validate(SAME_ORDER)
    model, masks = make_network(0.5)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    with standard_opponent() as opponent:
        rates = race(model, masks, splits, recipe, Effort(3, 0.01), opponent)
        (process,) = multiprocessing.active_children()
    assert not process.is_alive(), "it must end with the race"
    assert len(rates.sculpt) == len(rates.standard) == 3
    assert min(rates.sculpt + rates.standard + [rates.ratio]) > 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name])


@pytest.mark.slow
def test_a_standard_loop_that_stops_is_one_message(splits):
    model, masks = make_network(0.5)
    with standard_opponent() as opponent:
        (process,) = multiprocessing.active_children()
        process.kill()
        with pytest.raises(SculptError, match="the standard loop must run to its end"):
            opponent(model, masks, splits.train, Training.model_validate(SAME_ORDER))

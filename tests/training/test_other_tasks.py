"""Training on other data than images, and of other tasks than classification."""

import math
from dataclasses import replace

import pytest
import torch
from networks import equal
from small_training import recipe
from torch import nn

from sculpt.data import ImageArrays, Task, make_splits
from sculpt.pruning.masks import dense_masks
from sculpt.training.loop import train
from sculpt.training.loss_and_error import WORST, evaluate
from sculpt.training.training_checkpoint import TrainingCheckpoint


def lines(task):
    """60 rows of 6 numbers, and 2 sums of theirs."""
    rows = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    sums = rows.view(60, 2, 3).sum(2)
    targets = (sums > 0).float() if task.loss == "bce" else sums
    return make_splits(ImageArrays(rows[:50], targets[:50], rows[50:], targets[50:], ()), task=task)


def dropping(depth=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(depth, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))


def without_times(history):
    return [replace(epoch, seconds=0.0, images_per_second=0.0) for epoch in history]


@pytest.mark.parametrize("task", [Task("mse", "rmse"), Task("bce", "label_error")], ids=str)
def test_a_run_with_dropout_follows_from_its_seed_also_after_an_interruption(task, tmp_path):
    splits, settings = lines(task), recipe(epochs=4, batch_size=15)
    runs = []
    for chance, stops in ((1, False), (2, False), (3, True)):
        model, checkpoint = dropping(), TrainingCheckpoint(tmp_path / f"{chance}", 0.0)

        def listen(epoch, stops=stops):
            if stops and epoch.epoch == 2:
                raise KeyboardInterrupt

        how = {"seed": 3, "checkpoint": checkpoint}
        torch.manual_seed(chance)  # the global stream must have no say
        state = torch.get_rng_state()
        if stops:
            with pytest.raises(KeyboardInterrupt):
                train(model, dense_masks(model), splits, settings, on_epoch=listen, **how)
            model = dropping()
        trained = train(model, dense_masks(model), splits, settings, **how)
        assert stops or torch.equal(torch.get_rng_state(), state)
        runs.append((model.state_dict(), without_times(trained.history)))
    for state, history in runs[1:]:
        assert equal(state, runs[0][0])
        assert history == runs[0][1]
    first, last = runs[0][1][0], runs[0][1][-1]
    assert last.val_loss < first.val_loss
    assert last.train_error is None


def test_parts_of_a_batch_add_up_to_its_mean_loss():
    from sculpt.training.trainer import Trainer

    splits, settings = lines(Task("mse", "mse")), recipe(batch_size=16)
    found = []
    for parts in (1, 4):
        torch.manual_seed(0)
        model = nn.Linear(6, 2)
        trainer = Trainer(model, {}, splits.train, settings, "float32", 0)
        trainer.micro_batches = parts
        trainer.step(torch.arange(16))
        found.append((model.weight.detach(), trainer.loss_sum.item()))
    assert torch.allclose(found[0][0], found[1][0])
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-6)


@pytest.mark.parametrize("metric", ["mse", "rmse", "mae"])
def test_a_metric_that_is_not_finite_is_the_worst(metric):
    splits = lines(Task("mse", metric))
    loss, found = evaluate(nn.Sequential(Broken()), splits.validation)
    assert math.isnan(loss)
    assert found == WORST


class Broken(nn.Module):
    def forward(self, inputs):
        return inputs[:, :2] * math.nan


@pytest.mark.parametrize("metric", ["mse", "rmse", "mae"])
def test_metrics_do_not_depend_on_the_batches(metric):
    splits, model = lines(Task("mse", metric)), nn.Linear(6, 2)
    whole = evaluate(model, splits.train)
    assert evaluate(model, splits.train, batch_size=7) == pytest.approx(whole, rel=1e-5)


def test_volumes_and_series_are_trained_on():
    for shape, layer in (((2, 9), nn.Conv1d(2, 3, 3)), ((2, 4, 5, 6), nn.Conv3d(2, 3, 3))):
        inputs = torch.randn(40, *shape, generator=torch.Generator().manual_seed(1))
        arrays = ImageArrays(inputs, torch.arange(40) % 2, inputs, torch.arange(40) % 2, ("0", "1"))
        model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(2))
        model(inputs[:1])
        history = train(model, dense_masks(model), make_splits(arrays), recipe(), seed=0).history
        assert 0 <= history[-1].val_error <= 1
        assert history[-1].train_error is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_steps_of_a_regression_train_as_eager_ones():
    from sculpt.training.capture import capture
    from sculpt.training.trainer import Trainer

    splits, settings, weights = lines(Task("mse", "mse")).to("cuda"), recipe(batch_size=16), []
    for captured in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)).cuda()
        trainer = Trainer(model, {}, splits.train, settings, "float32", 0)
        if captured:
            before = trainer.state()
            trainer.update = capture(trainer, torch.arange(16, device="cuda"))
            trainer.restore(before)
        trainer.run_epoch(1)
        weights.append(model[0].weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=2e-2, atol=2e-3)

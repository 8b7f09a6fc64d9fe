"""Data of somebody's own callables, as tensors, arrays and data sets of any shape."""

from pathlib import Path

import numpy as np
import own_lab
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from sculpt.data import ImageSpec, TensorSpec, make_splits
from sculpt.data.task import LOSSES, METRICS, Task
from sculpt.errors import ConfigError, DataError, InputError
from sculpt.registry import DATASETS, _asked_for, imported, load_plugins, schema_of


@pytest.fixture(autouse=True)
def _asked():
    load_plugins(["own_lab"])


@pytest.fixture
def given(monkeypatch):
    """Read what a factory returns."""

    def read(returned):
        def load():
            return returned

        load.__module__ = "own_lab"
        monkeypatch.setattr(own_lab, "returned", load, raising=False)
        return DATASETS.get("import")(factory="own_lab:returned").read()

    return read


def test_series_alone_are_split_class_by_class():
    data = DATASETS.get("import")(factory="own_lab:series", count=60)
    arrays = data.read()
    assert data.describe() == arrays.spec == TensorSpec((2, 32), 3, "classes", pixels=False)
    assert torch.bincount(arrays.test_labels).tolist() == [4, 4, 4]
    assert torch.equal(arrays.test_images, data.read().test_images)
    splits = make_splits(arrays, validation_fraction=0.25)
    inputs = splits.train.inputs()
    assert inputs.shape == (36, 2, 32)
    assert inputs.mean((0, 2)).abs().max() < 1e-6
    assert inputs.std((0, 2), correction=0) == pytest.approx(torch.ones(2), abs=1e-6)


def test_a_table_is_normalised_by_its_training_rows(given):
    rows = torch.cat([torch.arange(20.0)[:, None], torch.full((20, 1), 7e6)], 1)
    arrays = given(((rows, torch.arange(20.0)), (rows[:4], torch.arange(4.0))))
    assert arrays.spec == TensorSpec((2,), 1, "numbers", pixels=False)
    assert arrays.train_labels.shape == (20, 1)
    splits = make_splits(arrays, task=Task("mse", "mse"))
    train, test = splits.train.inputs(), splits.test.inputs()
    assert train[:, 0].mean().abs() < 1e-6
    assert train[:, 1].abs().max() == 0, "a constant feature is centred"
    assert test[0, 0] == (0 - splits.train.mean[0]) / splits.train.std[0]


def test_images_of_8_bits_stay_images():
    data = DATASETS.get("import")(factory="own_lab:images", count=20)
    assert data.describe() == ImageSpec(3, 32, 32, 2)
    assert data.read().class_names == ("0", "1")


class Labelled(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, place):
        return np.zeros(2), np.array(place % 2)


@pytest.mark.parametrize(
    ("returned", "spec"),
    [
        (TensorDataset(torch.zeros(10, 3), torch.zeros(10, 2)), ((3,), 2, "numbers")),
        ((own_lab.Rows(10), own_lab.Rows(3)), ((4,), 2, "numbers")),
        ([np.zeros((10, 5)), np.arange(10) % 2], ((5,), 2, "classes")),
        ((np.zeros((10, 5), np.int16), np.ones(10, bool)), ((5,), 1, "numbers")),
        ((torch.zeros(10, 2, 4, 4, 4), torch.arange(10) % 3), ((2, 4, 4, 4), 3, "classes")),
        ((torch.zeros(10, 1, 4, 4), torch.arange(10) % 3), ((1, 4, 4), 3, "classes")),
        ((torch.zeros(10, 5).to_sparse(), np.arange(10, dtype="u2") % 2), ((5,), 2, "classes")),
        ((np.zeros((10, 5), ">f4")[:, ::-1], np.arange(10) % 2), ((5,), 2, "classes")),
        (Labelled(), ((2,), 2, "classes")),
    ],
)
def test_many_forms_are_taken(given, returned, spec):
    assert given(returned).spec == TensorSpec(*spec, pixels=False)


class Streamed(IterableDataset):
    def __iter__(self):
        return iter([])


class Named(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, place):
        return {"input": place}


class Missing(Named):
    def __getitem__(self, place):
        raise FileNotFoundError("no such row")


class Uneven(Named):
    def __getitem__(self, place):
        return torch.zeros(place + 1), 0


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ((torch.zeros(4, 2), torch.zeros(4), torch.zeros(4)), "but returns 3 of Tensor, Tensor"),
        (TensorDataset(*[torch.zeros(4, 2)] * 3), "several cannot be expressed"),
        (Streamed(), "make it a map-style Dataset"),
        (Named(), "several inputs cannot be expressed"),
        (Uneven(), "must all have one shape"),
        ((torch.zeros(4), torch.zeros(4)), "add the missing axis"),
        ((torch.zeros(4, 2), torch.zeros(4, 2, 2)), "maps and boxes cannot be expressed"),
        ((torch.zeros(4, 2), torch.tensor([0.0, 1, 2, torch.nan])), "targets must be finite"),
        ((torch.full((4, 2), torch.inf), torch.zeros(4)), "inputs must be finite numbers, but 8"),
        (
            (torch.zeros(4, 2), torch.tensor([0, 1, 2, 10**9])),
            "make targets of another kind floats",
        ),
        ((torch.zeros(4, 2), torch.tensor([0, 1, -1, 1])), "they span -1..1"),
        ((torch.zeros(4, 2), torch.zeros(3)), "must have a target for each input"),
        ((torch.zeros(4, 0), torch.zeros(4)), "or numbers"),
        ((torch.zeros(9, 2), 1 + torch.arange(9) % 2), "of 3 of own_lab:returned no training"),
        (
            ((torch.zeros(4, 2), torch.arange(4) % 2), (torch.zeros(2, 2), torch.tensor([1, 3]))),
            "no training target is 2; renumber them",
        ),
        (Missing(), "must be readable, but it raises FileNotFoundError: no such row"),
        ((np.array([["a"]] * 4), np.zeros(4)), "must be tensors or arrays of numbers"),
        (((torch.zeros(4, 2), torch.zeros(4)), (torch.zeros(4, 3), torch.zeros(4))), "one shape"),
        (
            ((torch.zeros(4, 2), torch.zeros(4)), (torch.zeros(4, 2), torch.zeros(4).long())),
            "test labels must be of one kind",
        ),
    ],
)
def test_what_is_none_of_them_is_refused(given, returned, said):
    with pytest.raises(DataError, match=r".*") as found:
        given(returned)
    assert said in str(found.value)


def test_a_callable_is_of_a_module_that_was_asked_for(monkeypatch):
    assert imported("own_lab:series") is own_lab.series
    with pytest.raises(ConfigError, match="if you trust it, give --plugins os "):
        imported("os:system")
    with pytest.raises(ConfigError, match=r"must be named module:function, but got 'own_lab\."):
        imported("own_lab.series")
    with pytest.raises(ConfigError, match="that has none"):
        imported("own_lab:gone")
    _asked_for.discard("own_lab")
    with pytest.raises(ConfigError, match="'own_lab' of 'own_lab:series' is not"):
        imported("own_lab:series")


def test_the_options_are_the_callable_s_own():
    entry = DATASETS.get("import")
    schema = schema_of(entry, {"factory": "own_lab:series"})
    assert set(schema.model_fields) == {"factory", "count", "length", "channels"}
    assert set(schema_of(entry, {}).model_fields) == {"factory"}
    assert set(schema_of(entry, {"factory": 3}).model_fields) == {"factory"}


def test_an_option_of_a_type_that_no_file_has_may_be_anything(monkeypatch):
    def wide(*, widths: tuple[int, ...] = (8,), root: Path | None = None, count: int = 3): ...

    wide.__module__ = "own_lab"
    monkeypatch.setattr(own_lab, "wide", wide, raising=False)
    schema = schema_of(DATASETS.get("import"), {"factory": "own_lab:wide"})
    schema.model_validate({"factory": "own_lab:wide", "widths": [8, 8], "root": "/tmp"})
    with pytest.raises(ValueError, match="count"):
        schema.model_validate({"factory": "own_lab:wide", "count": "3"})


def test_every_loss_and_metric_of_the_schema_exists():
    from sculpt.config.task import METRICS as NAMES

    assert NAMES.keys() == LOSSES.keys()
    assert {name for names in NAMES.values() for name in names} == METRICS.keys()


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("mse", 2.5), ("rmse", 2.5**0.5), ("mae", 1.5), ("label_error", 0.75), ("loss", 2.5)],
)
def test_metrics_are_what_they_are_called(metric, expected):
    outputs, targets = torch.tensor([[1.0, -1.0], [0.0, 2.0]]), torch.tensor([[0.0, 1], [2, 1]])
    task = Task("mse", metric)
    if (summed := task.summed_metric(outputs, targets)) is None:
        found = task.metric_of_set(outputs, targets)
    else:
        found = task.metric_of_mean(float(summed) / 2)
    assert found == pytest.approx(expected)


def test_a_function_of_somebody_s_may_write_into_its_targets(monkeypatch):
    def halving(outputs, targets):
        return (outputs - targets.mul_(0.5)).square().mean()

    def numpy_number(outputs, targets):
        targets -= targets.mean()
        return np.abs(outputs.numpy() - targets.numpy()).mean()

    for function in (halving, numpy_number):
        function.__module__ = "own_lab"
        monkeypatch.setattr(own_lab, function.__name__, function, raising=False)
    outputs, targets = torch.randn(6, 2), torch.rand(6, 2)
    before, task = targets.clone(), Task("own_lab:halving", "own_lab:numpy_number")
    found = [
        (float(task.mean_loss(outputs, targets)), task.metric_of_set(outputs, targets))
        for _ in "12"
    ]
    task.try_out(targets, 2)
    assert found[0] == found[1]
    assert torch.equal(targets, before)


def test_losses_add_up_over_batches():
    outputs, targets = torch.randn(6, 3), torch.rand(6, 3)
    for task in (Task("bce", "label_error"), Task("mse", "mse"), Task("own_lab:huber", "loss")):
        parts = sum(
            task.summed_loss(o, t) for o, t in zip(outputs.split(2), targets.split(2), strict=True)
        )
        assert float(parts) == pytest.approx(float(task.summed_loss(outputs, targets)), rel=1e-5)
        mean = float(task.mean_loss(outputs, targets))
        assert float(task.summed_loss(outputs, targets)) == pytest.approx(6 * mean, rel=1e-5)


def test_without_labels_scores_are_of_what_is_known_of_the_targets():
    outputs = torch.tensor([[2.0], [-1.0]], requires_grad=True)
    targets = torch.tensor([[4.0], [0.0]])
    uniform = Task("mse", "mse").scoring_loss(targets)("uniform")
    (slope,) = torch.autograd.grad(uniform(outputs, outputs, targets), outputs)
    assert slope.flatten().tolist() == [2 * (2 - 2), 2 * (-1 - 2)]
    half = Task("bce", "label_error").scoring_loss(targets)("uniform")
    (slope,) = torch.autograd.grad(half(outputs, outputs, targets), outputs)
    assert torch.allclose(slope, outputs.sigmoid() - 0.5)
    truth = Task("mse", "mse").scoring_loss(targets)("gt")
    assert truth(outputs, outputs, targets).item() == 4 + 1
    assert Task().scoring_loss(targets) is None
    for task, name in (
        (Task("mse", "mse"), "pred_raw"),
        (Task("own_lab:huber", "loss"), "uniform"),
    ):
        with pytest.raises(InputError, match="must have a meaning under the study's loss"):
            task.scoring_loss(targets)(name)


def test_probabilities_and_functions_are_tried_before_training(given):
    rows = torch.zeros(10, 2), torch.linspace(0, 2, 10)
    with pytest.raises(DataError, match=r"probabilities from 0 to 1 .* span 0\.\.2"):
        make_splits(given(rows), task=Task("bce", "label_error"))
    with pytest.raises(InputError, match=r"each_square returns \(8, 1\)"):
        make_splits(given(rows), task=Task("own_lab:each_square", "loss"))
    with pytest.raises(InputError, match="own_lab:broken raises TypeError"):
        make_splits(given(rows), task=Task("mse", "own_lab:broken"))

"""Published figures that need no training, on real MNIST (METHOD: Lee et al. 2020, Table 1)."""

from pathlib import Path

import pytest
import torch

from sculpt.data import Splits
from sculpt.measuring import Measuring
from sculpt.record import SculptedRecord
from sculpt.search.images import load_data
from sculpt.study_file import load_study
from sculpt.trial import sculpt_network
from sculpt.trial_setup import TrialSetup, resolve_budget

STUDY = Path(__file__).resolve().parents[1] / "studies" / "paper" / "table1.yaml"
SPARSITIES = [0.96, 0.81, 0.82, 0.82, 0.82, 0.80, 0.45]


@pytest.fixture(scope="module")
def splits(mnist_root):
    return load_data(load_study(STUDY, {"data.root": str(mnist_root)}))


def sculpt(splits: Splits, variance: float, seed: int) -> SculptedRecord:
    changes = {"pruning.initializer.variance": variance, "diagnostics.jacobian_images": 200}
    study = load_study(STUDY, changes)
    setup = TrialSetup(0, study, "candidate", {}, resolve_budget(study, splits.spec), [seed])
    return sculpt_network(setup, splits, splits.train, Measuring(setup, splits, seed)).record


@pytest.mark.slow
def test_layer_sparsities_and_signals_at_variance_01(splits):
    records = [sculpt(splits, 0.1, seed) for seed in range(10)]
    densities = torch.tensor([[layer.density for layer in r.layers] for r in records])
    assert all(record.kept_parameters == 13_001 for record in records)
    assert (1 - densities.mean(0)).tolist() == pytest.approx(SPARSITIES, abs=0.01)
    means = [record.signal["initial"].jacobian.mean for record in records]
    assert sum(means) / len(means) == pytest.approx(23.0, rel=0.1)


def test_variance_1_disconnects_the_network(splits):
    for seed in range(2):
        record = sculpt(splits, 1.0, seed)
        sparsities = [1 - layer.density for layer in record.layers]
        assert record.signal["pruned"].log10_paths is None
        assert record.signal["pruned"].effective_parameters == 0
        assert [round(s, 2) for s in sparsities[3:6]] == [1, 1, 1]  # layers 4 to 6
        assert record.signal["initial"].jacobian.mean == pytest.approx(1.01e3, rel=0.1)

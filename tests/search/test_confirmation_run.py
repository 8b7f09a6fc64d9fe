"""What follows a search: fresh seeds, the test set read once, and who is retrained."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import sculpt
import sculpt.measuring
from sculpt.config import Confirm, Study
from sculpt.config.arms import with_arm
from sculpt.errors import SculptError
from sculpt.search.confirmation_queue import best_candidates
from sculpt.search.progress import Watcher
from sculpt.storage.opening import open_store
from sculpt.storage.trial_files import read_record
from studies import TINY, write_study

FEW: dict[str, Any] = {"search__confirm": {"top": 1, "seeds": 2, "control": "shuffled"}}
"""Confirmation of the base and the best candidate, which is shuffled, too."""


def confirmed_study(folder: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "search__confirm": {"top": 2, "seeds": 3, "control": "shuffled"},
    }
    return write_study(folder, **(settings | changes))


def arms(path: Path) -> dict[tuple[Any, str], dict[str, Any]]:
    """Return the attributes of the finished confirmations, by candidate and arm."""
    confirmation = open_store(path).confirmation
    assert confirmation is not None
    done = [trial.user_attrs for trial in confirmation.trials if trial.state.name == "COMPLETE"]
    assert len(done) == len({(a["candidate"], a["arm"], a["seeds"]) for a in done})
    return {(a["candidate"], a["arm"]): a for a in done}


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory):
    path = confirmed_study(tmp_path_factory.mktemp("confirmed"))
    return path, sculpt.run(path)


@pytest.mark.slow
def test_the_best_and_the_base_are_trained_again(confirmed):
    path, results = confirmed
    ranking = [row["trial"] for row in sculpt.rank(results)["ranking"] if row["trial"] != "base"]
    found = arms(path)
    expected = {("base", "sculpted")}
    expected |= {(trial, arm) for trial in ranking[:2] for arm in ("sculpted", "shuffled")}
    assert set(found) == expected
    for attributes in found.values():
        assert len(attributes["test_errors"]) == len(attributes["val_errors"]) == 3
        assert all(0 < error < 1 for error in attributes["test_errors"])
    assert results.tally()["total"] == 4  # the search's own
    assert results.tally()["complete"] == 4


@pytest.mark.slow
def test_seeds_are_fresh_and_shared(confirmed):
    path, _ = confirmed
    confirmation = open_store(path).confirmation
    assert confirmation is not None
    for trial in confirmation.trials:
        record = read_record(open_store(path), trial)
        assert record.seeds == [1, 2, 3]  # the search used 0
        assert record.confirms == trial.user_attrs["candidate"]
        assert [run.test_error for run in record.runs] == record.test_errors


@pytest.mark.slow
def test_the_document_says_all_of_it(confirmed):
    document = sculpt.rank(confirmed[1])["confirmation"]
    found = arms(confirmed[0])
    assert document["complete"] is True
    assert (document["top"], document["seeds"]) == (2, 3)
    assert len(document["rows"]) == 4
    base = found["base", "sculpted"]["test_errors"]
    for row in document["rows"]:
        errors = found[row["trial"], row["arm"]]["test_errors"]
        against = (
            base if row["arm"] == "sculpted" else found[row["trial"], "sculpted"]["test_errors"]
        )
        assert row["test_error"]["mean"] == pytest.approx(sum(errors) / 3)
        difference = sum(errors) / 3 - sum(against) / 3
        assert row["difference"]["mean"] == pytest.approx(difference, abs=1e-12)


@pytest.mark.slow
def test_a_shuffled_mask_keeps_the_layers(confirmed):
    found = arms(confirmed[0])
    for (_, arm), attributes in found.items():
        if arm == "shuffled":
            assert attributes["kept_parameters"] == found["base", "sculpted"]["kept_parameters"]


def test_the_control_is_the_same_but_for_its_criterion():
    study = Study.model_validate(TINY)
    control = with_arm(study, "shuffled")
    assert control.pruning.criterion.model_dump() == {
        "name": "shuffled",
        "of": "connection_sensitivity",
        "of_options": {},
    }
    assert control.training == study.training
    assert control.pruning.repair == study.pruning.repair


@pytest.mark.slow
def test_the_test_images_are_read_once_for_each_network(tmp_path, monkeypatch):
    reads: list[int] = []
    evaluate = sculpt.measuring.evaluate

    def counted(model: Any, images: Any, **options: Any) -> Any:
        reads.append(len(images))
        return evaluate(model, images, **options)

    monkeypatch.setattr(sculpt.measuring, "evaluate", counted)
    path = confirmed_study(tmp_path, search__confirm={"top": 1, "seeds": 2})
    results = sculpt.run(path)
    assert len(reads) == 2 * 2  # two networks, two seeds; the search reads none
    assert results.trials["test_errors"].map(lambda errors: errors == [None]).all()
    sculpt.run(path)
    assert len(reads) == 4


@pytest.mark.slow
def test_going_on_trains_only_what_is_missing(tmp_path):
    """Confirmation may be asked for afterwards, and of more candidates, and on more seeds."""
    sculpt.run(write_study(tmp_path))
    counts = []
    for confirm in (
        {"top": 1, "seeds": 2},
        {"top": 2, "seeds": 2},
        {"top": 2, "seeds": 2},
        {"top": 1, "seeds": 3},
    ):
        path = write_study(tmp_path, search__confirm=confirm)
        document = sculpt.rank(sculpt.run(path))["confirmation"]
        assert (document["top"], document["seeds"]) == (confirm["top"], confirm["seeds"])
        assert len(document["rows"]) == confirm["top"]
        confirmation = open_store(path).confirmation
        assert confirmation is not None
        counts.append(len(confirmation.trials))
    assert counts == [2, 3, 3, 5]


class InterruptConfirmation(Watcher):
    """Presses Ctrl-C in the second confirmation."""

    def __init__(self) -> None:
        self.started: list[int | str] = []

    def trial_started(self, label: int | str, params: dict[str, Any], epochs: int) -> None:
        self.started.append(label)

    def epoch_finished(self, epoch: Any) -> None:
        if sum(str(label).startswith("confirm") for label in self.started) == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_an_interrupted_confirmation_goes_on(tmp_path):
    path = confirmed_study(tmp_path, **FEW)
    watcher = InterruptConfirmation()
    with pytest.raises(KeyboardInterrupt):
        sculpt.run(path, watcher=watcher)
    assert watcher.started[-2] == "confirm base"
    assert sculpt.rank(sculpt.open_results(path))["confirmation"]["complete"] is False
    document = sculpt.rank(sculpt.run(path))["confirmation"]
    assert document["complete"] is True
    assert len(arms(path)) == 3


@pytest.mark.slow
def test_several_workers_share_the_confirmation(tmp_path):
    path = confirmed_study(tmp_path, **FEW)
    document = sculpt.rank(sculpt.run(path, trials_per_device=2))["confirmation"]
    assert document["complete"] is True
    assert len(arms(path)) == 3


@pytest.mark.slow
def test_a_confirmation_that_fails_says_so_and_is_tried_again(tmp_path, monkeypatch):
    path = confirmed_study(tmp_path, search__confirm={"top": 1, "seeds": 2})
    with monkeypatch.context() as patch:
        patch.setattr(sculpt.measuring, "evaluate", lambda *_, **__: 1 / 0)
        with pytest.raises(SculptError, match="every confirmation must finish, but 2 failed"):
            sculpt.run(path)
    assert sculpt.rank(sculpt.run(path))["confirmation"]["complete"] is True


@pytest.mark.slow
def test_of_each_budget_the_best(tmp_path):
    path = write_study(
        tmp_path,
        budget=[2000, 4000],
        space__parameters={"widening": [2, 3]},
        search__trials="all",
        search__replicates=1,
        search__confirm={"top": 1, "seeds": 2},
    )
    results = sculpt.run(path)
    store = open_store(path)
    chosen = best_candidates(store, Confirm(top=1))
    table = results.complete.set_index("trial")
    assert sorted(table.loc[chosen, "params.budget"]) == [2000, 4000]
    for number in chosen:
        rivals = table[table["params.budget"] == table.loc[number, "params.budget"]]
        assert table.loc[number, "val_error_mean"] == rivals["val_error_mean"].min()

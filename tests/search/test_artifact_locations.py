"""Artifacts and checkpoints in any place: a folder, a URL, an object store."""

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import TrialState
from outcomes import run_one
from sqlalchemy import text
from watchers import Interrupt
from whole_records import whole_record

import sculpt
from sculpt.errors import InputError, SculptWarning, StorageError
from sculpt.exports import export_trial
from sculpt.record import Epoch, TrialRecord
from sculpt.results.records import Results
from sculpt.search.progress import Watcher
from sculpt.storage import artifacts as artifact_store
from sculpt.storage.artifacts import ArtifactStore, CheckpointFolder
from sculpt.storage.failures import LostStorageError
from sculpt.storage.opening import open_store, start_store, to_work_on
from sculpt.storage.store import Store
from sculpt.storage.trial_files import keep
from sculpt.storage.trials import ClaimedTrial
from sculpt.study_file import load_study
from sculpt.typed_json import from_json
from studies import write_study

Command = Callable[..., tuple[int, str, str]]

SHORT: dict[str, Any] = {
    "search__trials": 2,
    "search__replicates": 1,
    "search__checkpoint_seconds": 0,
    "training__epochs": 3,
    "space__parameters": {"widening": [2]},
}


@pytest.fixture
def bucket() -> Iterator[str]:
    """Return a URL of a place that only this process reaches, and that is no folder."""
    url = f"memory://{uuid4().hex}/deep"
    yield url
    with suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm(url, recursive=True)


def files_in(url: str) -> list[str]:
    return [str(name) for name in fsspec.filesystem("memory").find(url)]


def resumed(results: Results, trial: int | str) -> list[int]:
    """Return after which epochs the first seed of a trial went on."""
    found: list[int] = results.record(trial)["runs"][0]["training"]["resumed_at"]
    return found


@pytest.mark.slow
def test_a_study_whose_files_are_nowhere_on_this_machine(
    tmp_path: Path, bucket: str, sculpt_command: Command
) -> None:
    path = write_study(
        tmp_path,
        artifacts=bucket,
        **SHORT | {"search__trials": 3, "space__parameters": {"widening": [2, 3]}},
    )
    results = sculpt.run(path)
    assert results.tally()["complete"] == 3
    assert not (tmp_path / "tiny-artifacts").exists()
    assert not [name for name in files_in(bucket) if "checkpoints" in name or ".part" in name]

    # Readers know where it is from the study itself, not from its file.
    path.write_text(path.read_text().replace(f"artifacts: {bucket}\n", ""))
    code, shown, _ = sculpt_command("show", path, "best", "--json")
    assert (code, '"runs"' in shown) == (0, True)
    export_trial(sculpt.open_results(path), "best", tmp_path / "out")
    assert list((tmp_path / "out").glob("*.safetensors"))
    sculpt.open_results(path).copy_network("base", tmp_path / "base.safetensors")
    assert sculpt.load(tmp_path / "base.safetensors").metadata["role"] == "base"


@pytest.mark.slow
@pytest.mark.parametrize("by", [KeyboardInterrupt, SystemExit])
def test_what_was_interrupted_goes_on_from_a_remote_checkpoint(
    tmp_path: Path, bucket: str, by: type[BaseException]
) -> None:
    """As on another machine: nothing but the bucket and the storage is left of the first run."""
    (tmp_path / "whole").mkdir()
    whole = sculpt.run(write_study(tmp_path / "whole", **SHORT))
    path = write_study(tmp_path, artifacts=bucket, **SHORT)
    with pytest.raises(by):
        sculpt.run(path, watcher=Interrupt(5, by))
    kept = [name for name in files_in(bucket) if "checkpoints" in name]
    assert [name.rpartition("/")[2] for name in kept] == [
        "sculpted.safetensors",
        "training.safetensors",
    ]
    if by is SystemExit:  # as after kill -9, nobody has said that the trial has ended
        fail_running(path)
    results = sculpt.run(path)
    assert resumed(results, 1) == [2]
    for key in ("val_loss", "train_loss", "val_error"):
        mine, yours = results.record(1)["runs"][0], whole.record(0)["runs"][0]
        assert mine[key] == yours[key], "bit for bit"
    assert not [name for name in files_in(bucket) if "checkpoints" in name]


def fail_running(path: Path) -> None:
    """Do what another worker does when one has been silent for too long."""
    store = open_store(path)
    for trial in store.candidates.get_trials(deepcopy=False):
        if trial.state is TrialState.RUNNING:
            store.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


class TakenOverAtTheEnd(Watcher):
    """A worker that is frozen once its record is kept, and wakes when its trial is another's."""

    def __init__(self, path: Path):
        self.path, self.done = path, False

    def trial_finished(
        self, label: int | str, val_error: float | None, problem: str | None
    ) -> None:
        if label == 0 and not self.done:
            self.done = True
            fail_running(self.path)


@pytest.mark.slow
@pytest.mark.parametrize("remote", [True, False])
def test_a_late_worker_leaves_the_checkpoints_to_the_one_after_it(
    tmp_path: Path, bucket: str, remote: bool
) -> None:
    changes = SHORT | ({"artifacts": bucket} if remote else {})
    path = write_study(tmp_path, **changes)
    watcher = TakenOverAtTheEnd(path)
    results = sculpt.run(path, watcher=watcher)
    assert watcher.done
    tally = results.tally()
    assert (tally["complete"], tally["interrupted"], tally["failed"]) == (2, 1, 0)
    assert resumed(results, 1) == [3], "nothing was left to train"
    assert not [name for name in files_in(bucket) if "checkpoints" in name]
    assert not list(tmp_path.glob("tiny-artifacts/checkpoints/*/*/*"))


@pytest.mark.slow
def test_a_folder_that_vanishes_under_a_trial_costs_it_nothing(tmp_path: Path, bucket: str) -> None:
    """An older version's late worker removes it: then there is no progress to go on from."""

    class Remove(Watcher):
        def epoch_finished(self, epoch: Epoch) -> None:
            fsspec.filesystem("memory").rm(f"{bucket}/checkpoints", recursive=True)

    results = sculpt.run(write_study(tmp_path, artifacts=bucket, **SHORT), watcher=Remove())
    assert results.tally()["complete"] == 2


class TestWriting:
    def break_off(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        def half(source: Any, target: Any) -> None:
            target.write(source.read()[:2])
            raise error

        monkeypatch.setattr(artifact_store.shutil, "copyfileobj", half)

    @pytest.mark.parametrize("error", [OSError("connection lost"), KeyboardInterrupt()])
    @pytest.mark.parametrize("local", [True, False])
    def test_what_is_broken_off_is_not_there(
        self,
        tmp_path: Path,
        bucket: str,
        monkeypatch: pytest.MonkeyPatch,
        error: BaseException,
        local: bool,
    ) -> None:
        store = ArtifactStore(tmp_path / "files" if local else bucket)
        store.write("kept", io.BytesIO(b"before"))
        with monkeypatch.context() as patch:
            self.break_off(patch, error)
            for name in ("kept", "fresh"):
                with pytest.raises((LostStorageError, KeyboardInterrupt)):
                    store.write(name, io.BytesIO(b"after"))
        with store.open_reader("kept") as reader:
            assert reader.read() == b"before"
        assert not store.has("fresh")
        with pytest.raises(ArtifactNotFound):
            store.open_reader("fresh")
        names = files_in(bucket) if not local else list((tmp_path / "files").iterdir())
        assert len(names) == 1, "and nothing else is left behind"

    def test_a_checkpoint_that_cannot_be_kept_is_a_warning(
        self, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoints = CheckpointFolder(ArtifactStore(bucket), "checkpoints/a/base/0")
        with checkpoints.opened() as folder:
            file = folder / "seed-0" / "training.safetensors"
            file.parent.mkdir()
            for content in (b"first", b"second"):
                file.write_bytes(content)
                checkpoints.put(folder, file)
            self.break_off(monkeypatch, OSError("connection lost"))
            file.write_bytes(b"third")
            with pytest.warns(SculptWarning, match="cannot be kept .*connection lost"):
                checkpoints.put(folder, file)
        assert not folder.exists()
        half = f"{bucket}/checkpoints/a/base/0/seed-0/training.safetensors-0.part"
        fsspec.filesystem("memory").pipe(half, b"of a writer that was killed")
        with checkpoints.opened() as folder:
            assert {file.name: file.read_bytes() for file in folder.glob("*/*")} == {
                "training.safetensors": b"second"
            }
        checkpoints.remove()
        checkpoints.remove()  # by whoever comes second
        assert files_in(bucket) == []

    @pytest.mark.slow
    def test_a_record_that_cannot_be_kept_ends_the_run_and_not_the_trial(
        self, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_study(tmp_path, artifacts=bucket, **SHORT)
        write = ArtifactStore.write

        def refuse(store: ArtifactStore, artifact_id: str, content_body: Any) -> None:
            if not artifact_id.startswith(("study", "check")):  # checkpoints, too
                raise LostStorageError("artifacts must stay writable, but are not")
            write(store, artifact_id, content_body)

        with monkeypatch.context() as patch:
            patch.setattr(ArtifactStore, "write", refuse)
            with pytest.raises(LostStorageError, match="must stay writable"):
                sculpt.run(path)
        results = sculpt.run(path)
        tally = results.tally()
        assert (tally["complete"], tally["failed"]) == (2, 0)
        assert resumed(results, "base") == [3], "it was trained"


def start(path: Path, **overrides: Any) -> Store:
    """Start a study as a worker does, and train nothing."""
    config = load_study(path, overrides)
    return to_work_on(start_store(config, "no images", 2), config, "no images")


def add_kept(store: Store, attempts: int = 1) -> None:
    """Add a finished candidate, whose seed says of which attempt it is."""

    def objective(claimed: ClaimedTrial) -> list[float]:
        for attempt in range(attempts):
            record = whole_record(seeds=[attempt])
            keep(store, claimed, from_json(TrialRecord, record, "a record"), [])
        return [0.1, 1000.0]

    run_one(store.trials(store.candidates), objective)


class TestPlaces:
    def test_what_a_trial_kept_last_is_read(self, tmp_path: Path) -> None:
        """A retry has the artifacts of the attempts before it, too, in an order of chance."""
        store = start(write_study(tmp_path))
        add_kept(store, attempts=9)
        assert Results(store).record(0)["seeds"] == [8]

    def test_a_file_url_is_a_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "elsewhere"
        store = start(write_study(tmp_path, artifacts=f"file://{folder}"))
        assert store.artifacts.folder == folder
        assert len(list(folder.iterdir())) == 1
        assert not (tmp_path / "tiny-artifacts").exists()

    def test_a_folder_that_was_moved_is_found_beside_the_storage(self, tmp_path: Path) -> None:
        store = start(write_study(tmp_path, artifacts=str(tmp_path / "a")))
        add_kept(store)
        store.storage.close()
        (tmp_path / "moved").mkdir()
        shutil.move(tmp_path / "a", tmp_path / "moved" / "tiny-artifacts")
        shutil.move(tmp_path / "tiny.db", tmp_path / "moved" / "tiny.db")
        moved = sculpt.open_results("tiny", str(tmp_path / "moved" / "tiny.db"))
        assert moved.record(0)["role"] == "candidate"
        shutil.rmtree(tmp_path / "moved" / "tiny-artifacts")
        with pytest.raises(
            StorageError, match=r"record.json of trial 0 must lie in .*/moved/tiny-artifacts, but"
        ):
            sculpt.open_results("tiny", str(tmp_path / "moved" / "tiny.db")).record(0)

    @pytest.mark.slow
    def test_it_may_change_while_a_study_goes_on(self, tmp_path: Path, bucket: str) -> None:
        path = write_study(tmp_path)
        add_kept(start(path))
        for file in (tmp_path / "tiny-artifacts").iterdir():
            fsspec.filesystem("memory").pipe(f"{bucket}/{file.name}", file.read_bytes())
        shutil.rmtree(tmp_path / "tiny-artifacts")
        start(path, artifacts=bucket)
        assert sculpt.open_results(path).record(0)["role"] == "candidate"

    @pytest.mark.slow
    @pytest.mark.parametrize("older", [False, True])
    def test_workers_that_keep_them_apart_are_refused(
        self, tmp_path: Path, bucket: str, older: bool
    ) -> None:
        path = write_study(tmp_path)
        store = start(path)
        if older:  # its study has no key yet, and whoever comes first says what it is
            with store.storage.engine.begin() as connection:
                query = "DELETE FROM study_user_attributes WHERE key = 'artifacts_key'"
                assert connection.execute(text(query)).rowcount == 1
            start(path)
        with pytest.raises(StorageError, match="must be reachable by all workers") as refused:
            start(path, artifacts=bucket)
        elsewhere = store.config.model_copy(update={"artifacts": bucket})
        with pytest.raises(StorageError, match="must be reachable by all workers"):
            to_work_on(store, elsewhere, "no images")
        assert files_in(bucket) == []
        assert open_store(path).config.artifacts is None, "readers still look where they are"
        # What the message says to do, to go on without them.
        name = str(refused.value).split("has no file ")[1].split(". ")[0]
        ArtifactStore(bucket).write(name, io.BytesIO())
        assert start(path, artifacts=bucket).config.artifacts == bucket

    @pytest.mark.slow
    def test_a_worker_that_joins_elsewhere_is_refused(self, tmp_path: Path, bucket: str) -> None:
        path = write_study(tmp_path, artifacts=bucket, **SHORT)
        sculpt.run(path)
        sculpt.join(path, overrides={"artifacts": bucket})
        with pytest.raises(StorageError, match="must be reachable by all workers"):
            sculpt.join(path, overrides={"artifacts": str(tmp_path / "elsewhere")})

    def test_two_studies_may_share_a_place(self, tmp_path: Path, bucket: str) -> None:
        """Also two of one name, of which one was deleted: neither goes on from the other's."""
        stores = []
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            stores.append(start(write_study(tmp_path / name, artifacts=bucket)))
        assert len({store.checkpoints(store.base, 0).name for store in stores}) == 2


class TestRefused:
    def refused(self, path: Path, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            sculpt.run(path)
        assert [file.name for file in path.parent.iterdir()] == ["tiny.yaml"]

    def test_a_driver_that_is_not_installed(self, tmp_path: Path, sculpt_command: Command) -> None:
        fsspec.register_implementation(
            "absent", "not_there.Files", errtxt="Install absentfs to access it", clobber=True
        )
        path = write_study(tmp_path, artifacts="absent://bucket/path")
        self.refused(path, InputError, "artifacts must be a folder, or .*Install absentfs")
        code, _, printed = sculpt_command("run", path)
        assert (code, printed.count("\n")) == (2, 1)

    def test_an_unknown_kind(self, tmp_path: Path) -> None:
        path = write_study(tmp_path, artifacts="nope://bucket/path")
        self.refused(path, InputError, "but got nope://bucket/path")

    @pytest.mark.parametrize(
        "location",
        [
            "s3://KEY:SECRET@bucket/path",
            "s3://KEY:SEC/RET@bucket/path",
            "sftp://me:SECRET@host/path",
            "https://host/path?token=SECRET",
        ],
    )
    def test_secrets(self, tmp_path: Path, location: str, sculpt_command: Command) -> None:
        path = write_study(tmp_path, artifacts=location)
        self.refused(path, InputError, "must be a URL without keys, passwords and options")
        code, _, printed = sculpt_command("run", path)
        assert (code, "SECRET" in printed, "SEC/RET" in printed) == (2, False, False)

    def test_a_chain(self, tmp_path: Path) -> None:
        path = write_study(tmp_path, artifacts="simplecache::memory://bucket")
        self.refused(path, InputError, "must be one place, not a chain")

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        path = write_study(tmp_path, artifacts=str(tmp_path / "tiny.yaml" / "folder"))
        self.refused(path, StorageError, "must lie where files can be written and read, but")

    def test_no_credentials_are_a_user_s_name(self) -> None:
        for location in ("abfs://files@account.dfs.core.windows.net/path", "sftp://me@host/path"):
            assert ArtifactStore(location).folder is None


def test_where_artifacts_are_is_no_setting(tmp_path: Path, bucket: str) -> None:
    study = load_study(write_study(tmp_path))
    other = study.model_copy(update={"artifacts": bucket})
    assert study.fingerprint() == other.fingerprint()

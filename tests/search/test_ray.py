"""A study on a Ray cluster, of which one node is lost."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import sculpt
from sculpt.errors import InputError, StorageError
from sculpt.search.clusters.ray_cluster import _refuse_lone_file, share_out
from sculpt.search.workers.devices import WorkerCount
from sculpt.study_file import load_study
from studies import check_complete, write_study


@pytest.fixture
def cluster(monkeypatch):
    """Start a cluster of two nodes on this machine, with one worker's room each."""
    pytest.importorskip("ray", reason="needs Ray (pip install ray)")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    found = Cluster(initialize_head=True, head_node_args=head)
    yield found
    found.shutdown()


def running(path: Path) -> int:
    """Return how many candidates are running."""
    time.sleep(0.5)  # looking costs the workers time
    try:
        table = sculpt.open_results(path).trials
    except InputError:  # not made yet
        return 0
    if table.empty or "params.widening" not in table:
        return 0
    return len(table[(table["state"] == "running") & table["params.widening"].notna()])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_lost_node_loses_no_trial(tmp_path, cluster, wait_until):
    node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    # Long enough that a trial is in the middle when the node goes, on a fast machine, too.
    path = write_study(tmp_path, search__trials=4, training__epochs=100, search__grace_seconds=5)
    command = [sys.executable, "-m", "sculpt", "run", str(path), "--ray", cluster.address]
    started = subprocess.Popen(
        [*command, "--workers", "2", "--device", "cpu", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: running(path) == 2 or started.poll() is not None)
        cluster.remove_node(node, allow_graceful=False)
        printed, errors = started.communicate(timeout=500)  # Ray waits long on a busy machine
    finally:
        started.kill()
    assert started.returncode == 0, errors
    assert json.loads(printed)["trials"]["complete"] == 4
    # On a busy machine a living worker may fall silent, too.
    assert check_complete(path, 4).tally()["interrupted"] >= 1
    assert "val error" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ray": "127.0.0.1:1"}, "--ray must be local, auto or the address of a Ray cluster"),
        ({"ray": "local", "device": "cuda:1"}, "because Ray chooses the GPU, but got 'cuda:1'"),
        ({"ray": "local", "trials_per_device": "auto"}, "must be a number, but got auto"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_ray_cannot_do(tmp_path, options, message):
    pytest.importorskip("ray", reason="needs Ray (pip install ray)")
    with pytest.raises(InputError, match=message):
        sculpt.run(write_study(tmp_path), **options)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"]


def test_without_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'sculpt\[ray\]'"):
        sculpt.run(write_study(tmp_path), ray="local")


def node(cpus: float, gpus: float = 0, *, alive: bool = True, name: str = "far") -> dict[str, Any]:
    """Return what Ray says of a node."""
    found = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    return {"Alive": alive, "Resources": found, "NodeManagerHostname": name}


def test_the_room_of_each_worker():
    def room(nodes: list[dict[str, Any]], on_gpu: bool, **asked: Any) -> tuple[float, ...]:
        found = share_out(nodes, WorkerCount(**asked), on_gpu=on_gpu)
        return found.workers, found.threads, found.cpus, found.gpus

    machines = [node(16, 4), node(8, 2), node(64, 8, alive=False)]
    assert room(machines, True) == (6, 4, 4, 1)
    assert room(machines, True, trials_per_device=3) == (18, 1, 1, 0.3333)
    assert room(machines, False, workers=2) == (2, 8, 8, 0)  # it fits on the smaller one, too
    assert room([node(2)], False) == (2, 1, 1, 0)
    assert room([node(2)], False, workers=3) == (3, 1, 0.6666, 0)
    with pytest.raises(InputError, match="must find a GPU in the Ray cluster"):
        room([node(2)], True)


def test_a_file_is_not_for_several_machines(tmp_path):
    config = load_study(write_study(tmp_path))
    with pytest.raises(StorageError, match="must share a database server, but the storage is"):
        _refuse_lone_file(config, [node(1)])
    _refuse_lone_file(config, [node(1, alive=False)])
    server = config.model_copy(update={"storage": "postgresql://me@server/studies"})
    _refuse_lone_file(server, [node(1)])

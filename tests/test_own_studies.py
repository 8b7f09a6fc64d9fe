"""Studies of networks, data and tasks of one's own, from the command to the exported network."""

import json
import re
import sys
from pathlib import Path

import own_lab
import pytest
import yaml

import sculpt
from sculpt import registry
from sculpt.config import Study, Task, named_plugins
from sculpt.errors import InputError
from sculpt.units import ERROR, Metric
from studies import write_study

TABLE = {
    "study": "own",
    "data": {"name": "import", "factory": "own_lab:diabetes"},
    "model": {"name": "import", "factory": "own_lab:table_net", "units": 8},
    "task": {"loss": "mse", "metric": "rmse"},
    "space": {"parameters": {"units": [16]}},
    "training": {"epochs": 2, "batch_size": 50, "learning_rate": 0.02, "precision": "float32"},
    "search": {"trials": 2, "replicates": 2},
}
SERIES = TABLE | {
    "data": {"name": "import", "factory": "own_lab:series", "count": 200},
    "model": {"name": "import", "factory": "own_lab:SeriesNet", "width": 4},
    "task": {},
    "space": {"parameters": {"width": [6]}},
    "pruning": {"initializer": {"name": "variance_scaling"}},
}
IMAGES = TABLE | {
    "data": {"name": "import", "factory": "own_lab:images", "validation_fraction": 0.2},
    "model": {
        "name": "import",
        "factory": "torchvision.models:MobileNetV2",
        "width_mult": 0.1,
        "inverted_residual_setting": [[1, 8, 1, 1], [4, 16, 2, 2]],
    },
    "task": {},
    "space": {"parameters": {"width_mult": [0.2]}},
    "training": TABLE["training"] | {"epochs": 1, "flip": True, "translate": 2},
    "diagnostics": {"jacobian_images": 0},
}


def write(folder, document, **changes):
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(document | {"storage": str(folder / "own.db")} | changes))
    return path


@pytest.fixture
def forget(monkeypatch):
    """Forget who asked for which module, as another process does."""
    return lambda: monkeypatch.setattr(registry, "_asked_for", set())


def followed(path, sculpt_command, monkeypatch, forget, modules, formats="bundle"):
    """Check, run, rank, report and export a study; return what is said of each."""
    monkeypatch.chdir(path.parent)
    said = {}
    monkeypatch.setitem(sys.modules, "own_lab", own_lab)  # which is put back in the end
    for name, *command in (
        ("check", path, "--json"),
        ("run", path),
        ("rank", path, "--json"),
        ("show", path, "0", "--json"),
        ("report", path, "--format", "md"),
    ):
        if name == "rank":  # from here on it is what others read
            forget()
            del sys.modules["own_lab"]
        code, out, error = sculpt_command(name, *command)
        assert code == 0, (name, error)
        said[name] = json.loads(out) if "--json" in command else out
    said["report"] = (path.parent / "own-report.md").read_text()
    code, _, error = sculpt_command("export", path, "--trial", "0")
    assert (code, "if you trust it, give --plugins" in error) == (2, True)
    assert "own_lab" not in sys.modules, "what is read imports nothing"
    plugins = [word for module in modules for word in ("--plugins", module)]
    export = ["export", path, "--trial", "0", "--format", formats, "--output", "won"]
    code, _, error = sculpt_command(*export, *plugins)
    assert code == 0, error
    assert sculpt.verify("won")["ok"]
    said["card"] = (path.parent / "won" / "README.md").read_text()
    return said


@pytest.mark.slow
def test_a_regression_of_a_table(tmp_path, sculpt_command, monkeypatch, forget):
    search = {"trials": 2, "replicates": 2, "confirm": {"top": 1, "seeds": 2}}
    path = write(tmp_path, TABLE, search=search)
    said = followed(path, sculpt_command, monkeypatch, forget, ["own_lab"])
    assert said["check"]["base"]["dense_parameters"] == 10 * 8 + 8 + 8 + 1
    assert own_lab.CALLS[-1] == {"input_shape": (10,), "outputs": 1}
    ranking = said["rank"]
    assert ranking["metric"] == {"name": "rmse", "share": False}
    assert ranking["confirmation"]["complete"]
    assert all(0 < row["val_error"]["mean"] < 2 for row in ranking["ranking"])
    record = said["show"]
    shape = {key: record["input"][key] for key in ("shape", "outputs", "targets", "pixels")}
    assert shape == {"shape": [10], "outputs": 1, "targets": "numbers", "pixels": False}
    last = record["runs"][0]["history"][-1]
    assert last["val_error"] == pytest.approx(last["val_loss"] ** 0.5)
    assert last["train_error"] is None
    for text in (said["run"], said["report"], said["card"]):
        assert "rmse" in text
        spoken = text.partition("## How to reproduce")[0].partition("## Files")[0]
        assert "error" not in spoken.replace("errors.png", "")
        assert " points" not in spoken
    assert "lower is better" in said["report"]
    page = Path(sculpt.report(path, "own.html")).read_text()
    spoken = page[page.index("<body") : page.index('<section id="reproduce')]
    assert "Rmse against sparsity" in spoken
    assert not re.search(r"(?<!-)\b(validation|test|candidate’s) errors?\b", spoken, re.IGNORECASE)


@pytest.mark.slow
def test_a_convolutional_network_on_series(tmp_path, sculpt_command, monkeypatch, forget):
    path = write(tmp_path, SERIES)
    said = followed(path, sculpt_command, monkeypatch, forget, ["own_lab"], "bundle,pt2")
    assert said["show"]["input"]["shape"] == [2, 32]
    assert said["show"]["kept_parameters"] == said["show"]["budget"]
    assert "metric" not in said["rank"]
    assert "validation error" in said["report"]
    assert "2 × 32, float32, (value − mean) / std" in said["card"]


@pytest.mark.slow
def test_an_imported_mobilenet_on_images(tmp_path, sculpt_command, monkeypatch, forget):
    path = write(tmp_path, IMAGES, search={"trials": 2, "replicates": 1})
    said = followed(path, sculpt_command, monkeypatch, forget, ["torchvision.models"])
    record = said["show"]
    assert record["input"].keys() == {
        *("channels", "height", "width", "classes", "mean", "std", "class_names")
    }
    assert record["input"]["classes"] == 2
    assert record["config"]["plugins"] == ["torchvision.models", "own_lab"]
    assert "task" not in record["config"]
    assert record["layers"][-1]["shape"][0] == 2, "the factory was given num_classes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "data", "metric"),
    [
        ({"loss": "bce"}, "many_labels", {"name": "label error", "share": True}),
        ({"loss": "own_lab:focal", "metric": "error"}, "series", None),
        (
            {"loss": "own_lab:huber", "metric": "own_lab:worst_distance"},
            "rows",
            {"name": "worst distance", "share": False},
        ),
    ],
)
def test_other_tasks_are_ranked_by_their_metric(tmp_path, task, data, metric):
    path = write(
        tmp_path,
        SERIES if data == "series" else TABLE,
        data={"name": "import", "factory": f"own_lab:{data}"},
        task=task,
        pruning={
            "initializer": {"name": "variance_scaling"},
            "criterion": {"name": "grasp" if data == "rows" else "iterative_snip", "targets": "gt"}
            | ({"temperature": 1.0} if data == "rows" else {"rounds": 2}),
        },
    )
    results = sculpt.run(path)
    assert set(results.trials["state"]) == {"complete"}
    assert sculpt.rank(results).get("metric") == metric
    trained = results.record(0)["runs"][0]
    assert trained["val_loss"] is not None
    if metric and metric["share"]:
        assert 0 <= trained["val_error"] <= 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": {"loss": "mse", "metric": "error"}}, "a metric among mse, rmse, mae"),
        ({"task": {"loss": "hinge"}}, "a loss among cross_entropy, bce, mse"),
        ({"task": {"loss": "own_lab:gone"}}, "task.loss: 'own_lab:gone' must name a function"),
        ({"task": {"loss": "own_lab:huber"}}, "criterion.targets: must be gt or jacobian_1"),
        (
            {"task": {"loss": "own_lab:each_square"}, "pruning": {"criterion": {"name": "random"}}},
            "must return one number, but own_lab:each_square returns (",
        ),
        (
            {"pruning": {"criterion": {"name": "grasp"}}},
            "criterion.temperature: must be 1 or 1.0 where task.loss is mse",
        ),
        (
            {"pruning": {"criterion": {"name": "iterative_snip", "targets": "pred_raw"}}},
            "criterion.targets: must be uniform or gt or jacobian_1 or jacobian_2",
        ),
        ({"task": {}}, "targets must be classes"),
        (
            {"training": TABLE["training"] | {"label_smoothing": 0.1}},
            "label_smoothing: must be 0 where task.loss is not cross_entropy",
        ),
        (
            {"training": TABLE["training"] | {"flip": True, "cutout": 2}},
            "training.cutout: must be 0 for inputs that are not images",
        ),
        ({"model": TABLE["model"] | {"units": "8"}}, "model.units"),
        ({"model": TABLE["model"] | {"unit": 8}}, "model.unit: must be one of the keys known here"),
        ({"model": TABLE["model"] | {"units": -1}}, "own_lab:table_net must take its options"),
        ({"model": TABLE["model"] | {"outputs": 2}}, "one number for each of a target's 1"),
        ({"model": {"name": "import"}}, "model.factory: must be given"),
        (
            {
                "model": {"name": "import", "factory": "own_lab:TwoHeads"},
                "space": {"parameters": {"training.epochs": [1]}},
            },
            "must return one tensor, but returned",
        ),
        (
            {
                "model": {"name": "import", "factory": "own_lab:token_net"},
                "space": {"parameters": {"training.epochs": [1]}},
            },
            "must take inputs of shape (10,), but refuses",
        ),
        (
            {
                "model": {"name": "import", "factory": "own_lab:nothing"},
                "space": {"parameters": {"training.epochs": [1]}},
            },
            "return a torch.nn.Module",
        ),
        (
            {
                "model": {"name": "import", "factory": "own_lab:Recurrent"},
                "space": {"parameters": {"training.epochs": [1]}},
            },
            "the forward pass applies 'gru'",
        ),
        ({"model": {"name": "import", "factory": "os.path:join"}}, "has it from elsewhere"),
        ({"data": {"name": "import", "factory": "own_lab:broken"}}, "no such table"),
        ({"data": {"name": "import", "factory": "own_lab:nothing"}}, "but returns NoneType"),
        ({"data": {"name": "import", "factory": "not_there:load"}}, "must be importable modules"),
        ({"data": {"name": "digits"}}, "targets must be numbers"),
        ({"published": {"source": "x", "figures": ["test_error"]}}, "published: must be left out"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(
    tmp_path, sculpt_command, changes, said
):
    path = write(tmp_path, TABLE, **changes)
    for command in ("check", "run"):
        code, out, error = sculpt_command(command, path)
        assert (code, out) == (2, ""), error
        assert said in error
    assert list(tmp_path.iterdir()) == [path]


def test_the_modules_of_callables_are_plugins():
    document = TABLE | {"plugins": ["mine"], "task": {"loss": "a.b:c", "metric": "mse"}}
    space = {"parameters": {"model": [{"name": "import", "factory": "nets:make"}], "factory": [""]}}
    assert named_plugins(document | {"space": space}) == ["mine", "own_lab", "nets", "a.b"]
    assert Study.model_validate(TABLE).plugins == ["own_lab"]
    assert named_plugins({"study": "x", "plugins": "no list"}) == []


def test_a_task_that_is_not_named_leaves_no_trace():
    plain = Study.model_validate({key: part for key, part in TABLE.items() if key != "task"})
    named = plain.model_copy(update={"task": Task(loss="cross_entropy", metric="error")})
    assert "task" not in plain.model_dump()
    assert plain.fingerprint() == named.fingerprint()
    assert Study.model_validate(TABLE).fingerprint() != plain.fingerprint()
    again = Study.model_validate(json.loads(json.dumps(Study.model_validate(TABLE).model_dump())))
    assert again.task == Task(loss="mse", metric="rmse")


def test_metrics_as_people_read_them():
    assert Task(loss="bce").shown == Metric("label error", share=True)
    assert Task(loss="bce").shown.value(0.25) == "25.00 %"
    assert Task(loss="my.lab:loss").metric == "loss"
    assert Task(loss="mse", metric="lab:worst_case").shown.name == "worst case"
    assert Metric("mse", share=False).spread({"mean": 0.12345, "std": 0.02, "n": 2}) == (
        "0.1235 ± 0.02 (n 2)"
    )
    interval = {"mean": -0.5, "low": -1.25, "high": 0.25}
    assert Metric("mse", share=False).difference(interval) == "−0.5 [−1.25, +0.25]"
    assert ERROR.difference(interval) == "−50.00 [−125.00, +25.00]"
    assert Metric.of_settings(None) == Metric.of_document({}) == ERROR


def test_a_network_of_somebody_s_is_built_only_if_its_module_was_asked_for(tmp_path, forget):
    from sculpt.bundle import write_bundle
    from sculpt.models import build_for

    options = {"factory": "own_lab:table_net"}
    registry.load_plugins(["own_lab"])
    model = build_for("import", (4,), 2, options)
    metadata = {
        "model": {"name": "import", "options": options},
        "input": {"shape": [4], "outputs": 2},
    }
    file = tmp_path / "network.safetensors"
    write_bundle(file, model, {}, metadata | {"plugins": ["own_lab"]})
    forget()
    assert "own_lab" in sys.modules
    with pytest.raises(InputError, match="if you trust it, give --plugins own_lab"):
        sculpt.load(file)


@pytest.mark.slow
def test_what_a_study_names_is_trusted_no_more_than_before_in_its_workers(tmp_path, forget):
    """A storage may come from anybody, and name modules that every program has imported."""
    config = sculpt.load_study(write_study(tmp_path, plugins=["json"], search__trials=2))
    forget()
    sculpt.run(config)
    with pytest.raises(InputError, match="give --plugins json"):
        registry.imported("json:loads")
    registry.load_plugins(["json"], trusted=[])
    with pytest.raises(InputError, match="give --plugins json"):
        registry.imported("json:loads")
    registry.load_plugins(["json"])
    assert registry.imported("json:loads") is json.loads


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"factory": "os:system", "command": "touch ran"}, "'os' of 'os:system' is not"),
        ({"factory": "own_lab:nn"}, "has it from elsewhere"),
        ({"factory": "own_lab:load_diabetes"}, "has it from elsewhere"),
        ({"factory": "own_lab.x:y"}, "is not; if you trust it"),
        ({"factory": "own_lab:__import__('os')"}, "must fit it"),
        ({"factory": "own_lab:table_net", "units": 10**7}, "options of import must be at most"),
        ({"factory": "own_lab:table_net", "units": 10**6}, "far larger than what is in the file"),
        ({"factory": "own_lab:nothing"}, "must return a torch.nn.Module"),
        ({}, "must fit it"),
        (None, "must fit it"),
    ],
)
def test_a_stranger_s_file_calls_nothing_else(tmp_path, monkeypatch, model, said):
    from torch import nn

    from sculpt.bundle import write_bundle

    monkeypatch.chdir(tmp_path)
    registry.load_plugins(["own_lab"])
    metadata = {
        "model": {"name": "import", "options": model},
        "input": {"shape": [4], "outputs": 2},
    }
    file = tmp_path / "network.safetensors"
    write_bundle(file, nn.Linear(4, 2), {}, metadata)
    with pytest.raises(InputError, match=r".*") as found:
        sculpt.load(file)
    assert said in str(found.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"shape": [], "outputs": 2}, "input.shape must be a list of at most 8"),
        ({"shape": [1] * 9, "outputs": 2}, "input.shape must be a list of at most 8"),
        ({"shape": "4", "outputs": 2}, "input.shape must be a list of at most 8"),
        ({"shape": [2**21], "outputs": 2}, "input.shape.0 must be a whole number"),
        ({"shape": [4], "outputs": True}, "input.outputs must be a whole number"),
        ({"shape": [4]}, "input.outputs must be a whole number"),
    ],
)
def test_a_stranger_s_shape_is_bounded(tmp_path, described, said):
    from torch import nn

    from sculpt.bundle import write_bundle

    file = tmp_path / "network.safetensors"
    model = {"name": "mlp", "options": {}}
    write_bundle(file, nn.Linear(4, 2), {}, {"model": model, "input": described})
    with pytest.raises(InputError) as found:
        sculpt.load(file)
    assert said in str(found.value)

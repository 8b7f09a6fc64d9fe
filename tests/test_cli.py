"""The command line's contract: JSON documents, exit codes, and one clear message."""

import json
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
from manual import ROOT
from typer.main import get_command
from typer.testing import CliRunner

import sculpt
from sculpt.cli import COMMANDS, app
from sculpt.cli.options import overrides
from sculpt.errors import InputError, SculptWarning
from sculpt.storage.opening import start_store
from studies import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The tiny study run by the command line, and what `run --json` printed last."""
    path = write_study(
        tmp_path_factory.mktemp("cli"), search__replicates=2, diagnostics__jacobian_images=2
    )
    done = CliRunner().invoke(app, ["run", str(path), "--json"])
    assert done.exit_code == 0, done.output
    assert "4 trials" in done.stderr
    return path, json.loads(done.stdout)


def test_run_and_rank_print_the_ranking(study, sculpt_command):
    path, printed = study
    code, out, _ = sculpt_command("rank", path, "--json")
    assert code == 0
    assert json.loads(out) == printed
    assert printed["study"] == "tiny"
    assert printed["budget"] == 4874
    assert {"total", "complete", "stopped", "failed", "running"} <= printed["trials"].keys()
    assert printed["trials"]["total"] == printed["trials"]["complete"] == 4
    rows = printed["ranking"]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert sorted(row["role"] for row in rows) == ["base", "candidate", "candidate", "candidate"]
    means = [row["val_error"]["mean"] for row in rows]
    assert means == sorted(means)
    for row in rows:
        assert row.keys() >= {
            "trial",
            "params",
            "kept_parameters",
            "sparsity",
            "kept_macs",
            "dense_macs",
            "verdict",
            "seconds",
        }
        assert row["kept_parameters"] == 4874
        assert row["val_error"]["n"] == 2
        assert 0 <= row["val_error"]["mean"] <= 1
        assert row["kept_macs"] <= row["dense_macs"]
        if row["role"] == "base":
            assert (row["trial"], row["verdict"], row["sparsity"]) == ("base", "base", 0)
        else:
            assert row["params"].keys() == {"widening", "blocks"}
            assert row["verdict"] in ("better", "worse", "not distinguishable")
            assert 0 < row["sparsity"] < 1


def test_check(study, sculpt_command):
    code, out, _ = sculpt_command("check", study[0], "--json")
    document = json.loads(out)
    assert code == 0
    assert document["study"] == "tiny"
    assert document["counting"] == "paper"
    assert document["budget"] == document["base"]["dense_parameters"] == 4874
    assert document["base"]["params"]["blocks"] == 1
    assert document["base"]["macs"] > 0
    assert document["space_size"] == len(document["corners"]) == 4
    for corner in document["corners"]:
        assert corner["params"].keys() == {"widening", "blocks"}
        assert corner["sparsity"] == pytest.approx(1 - 4874 / corner["dense_parameters"])
        assert corner["dense_macs"] > document["base"]["macs"]
        assert (corner["feasible"], corner["reason"]) == (True, None)


def test_pareto(study, sculpt_command):
    _, out, _ = sculpt_command("pareto", study[0], "--objectives", "val_error,macs", "--json")
    document = json.loads(out)
    directions = [(o["name"], o["direction"]) for o in document["objectives"]]
    assert directions == [("val_error", "minimize"), ("macs", "minimize")]
    assert len(document["front"]) + document["dominated"] == 4
    assert "base" in [row["trial"] for row in document["front"]], "nothing has fewer dense MACs"
    for row in document["front"]:
        assert row["values"].keys() == {"val_error", "macs"}
    _, out, _ = sculpt_command("pareto", study[0], "--where", "widening > 2", "--json")
    for row in json.loads(out)["front"]:
        assert row["params"]["widening"] == 3
    _, out, _ = sculpt_command("pareto", study[0], "--format", "csv")
    assert out.splitlines()[0].startswith("study,trial,role,budget,")


def test_show(study, sculpt_command):
    for row in study[1]["ranking"]:
        code, out, _ = sculpt_command("show", study[0], row["trial"], "--json")
        record = json.loads(out)
        assert code == 0
        assert record["val_error"] == row["val_error"]
        assert record["config"]["training"]["epochs"] == 1
        assert record["seeds"] == [0, 1]
        assert {"torch", "optuna", "sculpt"} <= record["versions"].keys()
        assert record["device"]["type"] == "cpu"
        for run in record["runs"]:
            assert len(run["history"]) == 1
            assert run["seconds"]["train"] > 0
        for layer in record["layers"]:
            assert layer.keys() >= {"name", "shape", "kept", "density"}
            after, bound = layer["orthogonality_after"], layer["orthogonality_bound"]
            assert after <= layer["orthogonality_before"] + 1e-6
            if row["role"] == "candidate":
                assert bound - 1e-4 <= after
        steps = {"initial"} if row["role"] == "base" else {"initial", "pruned", "repaired"}
        assert record["signal"].keys() == steps


def test_python_functions_answer_as_commands_do(study, sculpt_command):
    path, printed = study
    results = sculpt.open_results(path)
    assert sculpt.status(results) == {"study": "tiny", "trials": printed["trials"]}
    small = {"params.widening": 2, "pruning.repair": False}
    settings = ["--set", "params.widening=2", "--set", "pruning.repair=false"]
    for command, answer in [
        (["status", path], sculpt.status(path)),
        (["rank", path], sculpt.rank(results)),
        (["check", path, *settings[2:]], sculpt.check(path, {"pruning.repair": False})),
        (["diagnose", path, *settings], sculpt.diagnose_candidate(path, small)[0]),
    ]:
        code, out, _ = sculpt_command(*command, "--json")
        found, expected = json.loads(out), json.loads(json.dumps(answer))
        if command[0] == "diagnose":
            assert found.pop("seconds").keys() == expected.pop("seconds").keys()
        assert (code, found) == (0, expected)


def test_files_go_where_nothing_else_is_said(study, sculpt_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = study[0]
    assert sculpt.report(path, format="md") == Path("tiny-report.md")
    assert sculpt.archive(path) == Path("results/tiny")
    manifest = sculpt.export_trial(path)
    assert json.loads(Path("tiny-best/manifest.json").read_text()) == manifest
    with pytest.raises(InputError, match="format must be one of html, md, but got 'pdf'"):
        sculpt.report(path, format="pdf")
    for command, place in [
        (["report", "--format", "md"], "report: tiny-report.md"),
        (["archive"], "archive: results/tiny"),
        (["export", "--json"], "exported: tiny-best"),
    ]:
        code, out, err = sculpt_command(command[0], path, *command[1:])
        assert (code, err) == (0, f"{place}\n")
    assert json.loads(out) == manifest


def test_what_is_written_is_named_in_json_too(study, sculpt_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command, document in [
        (["init", "--json"], {"written": ["study.yaml"]}),
        (
            ["init", "own.yaml", "--data", "import", "--json"],
            {"written": ["own.yaml", "my_lab.py"]},
        ),
        (["report", study[0], "--output", "found.html", "--json"], {"report": "found.html"}),
        (["archive", study[0], "--records", "all", "--json"], {"archive": "results/tiny"}),
    ]:
        code, out, _ = sculpt_command(*command)
        assert (code, json.loads(out)) == (0, document)
    for place in ("study.yaml", "own.yaml", "my_lab.py", "found.html", "results/tiny"):
        assert (tmp_path / place).exists()
    # Records of every trial, those of the base and the best alone by default.
    assert len(list((tmp_path / "results/tiny/records").iterdir())) == 4


def test_a_ranking_goes_to_a_file_in_every_format(study, sculpt_command, tmp_path):
    path, printed = study
    for form in ("table", "csv", "json", "parquet"):
        file = tmp_path / f"ranking.{form}"
        arguments = ("rank", path, "--format", form, "--output", file)
        assert sculpt_command(*arguments) == (0, "", "")
    assert json.loads((tmp_path / "ranking.json").read_text()) == printed
    assert "widening" in (tmp_path / "ranking.table").read_text()
    trials = [str(row["trial"]) for row in printed["ranking"]]
    lines = (tmp_path / "ranking.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == trials
    assert list(pd.read_parquet(tmp_path / "ranking.parquet")["trial"]) == trials


def test_the_network_of_a_seed_is_exported(study, sculpt_command, tmp_path):
    results, stems = sculpt.open_results(study[0]), []
    for seed in (0, 1):
        folder, kept = tmp_path / f"seed-{seed}", tmp_path / f"{seed}.safetensors"
        options = ("--trial", 0, "--seed", seed, "--output", folder)
        assert sculpt_command("export", study[0], *options)[0] == 0
        results.copy_network(0, kept, seed)
        exported, trained = (sculpt.load(path).model.state_dict() for path in (folder, kept))
        assert all(torch.equal(exported[name], trained[name]) for name in trained)
        stems.append(trained["stem.conv.weight"])
    assert not torch.equal(*stems)
    code, _, err = sculpt_command("export", study[0], "--trial", 0, "--seed", 7)
    assert (code, err) == (2, "sculpt: the seed of trial 0 must be one of 0, 1, but got 7\n")


def test_a_check_looks_for_measurements_where_the_study_is_kept(study, sculpt_command, tmp_path):
    elsewhere = tmp_path / "elsewhere.db"
    small = ["--set", "params.widening=2", "--repeats", 1, "--seconds", 0.01, "--device", "cpu"]
    assert sculpt_command("bench", study[0], "--storage", elsewhere, *small)[0] == 0
    code, out, _ = sculpt_command("check", study[0], "--storage", elsewhere, "--json")
    assert (code, json.loads(out)["predicted"]["seconds"] > 0) == (0, True)
    assert json.loads(sculpt_command("check", study[0], "--json")[1])["predicted"] is None


def test_images_that_are_missing_are_said(tmp_path, sculpt_command):
    path = write_study(tmp_path, data={"name": "mnist", "root": str(tmp_path)})
    with pytest.warns(SculptWarning, match="data.download=true"):
        document = sculpt.check(path)
    code, out, err = sculpt_command("check", path, "--json")
    assert (code, json.loads(out)) == (0, json.loads(json.dumps(document)))
    assert err.startswith("note: ")


@pytest.mark.slow
def test_asking_does_not_wait_for_pytorch(study):
    """Every question is answered from the storage, without the second that torch takes."""
    code = (
        "import sys, sculpt; results = sculpt.open_results(sys.argv[1]); sculpt.rank(results); "
        "sculpt.pareto(results); results.record(0); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(study[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_counting_trials_waits_for_no_table(study):
    code = (
        "import sys; from sculpt.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "print([m for m in ('torch', 'pandas', 'scipy', 'altair') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, "status", str(study[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_sizes_need_no_compiler(tmp_path):
    """Nor the algebra that comes with it: to import both takes longer than PyTorch itself."""
    code = (
        "import sys; from sculpt.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "print([m for m in ('torch._dynamo', 'sympy') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, "check", str(write_study(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_tables_for_people(study, sculpt_command):
    for command, expected in [
        (["check"], "dense size"),
        (["rank"], "against the base"),
        (["status"], "4 of 4 trials complete"),
        (["pareto"], "Pareto front"),
        (["show"], "signal propagation"),
    ]:
        extra = ["0"] if command == ["show"] else []
        code, out, err = sculpt_command(*command, study[0], *extra)
        assert (code, err) == (0, "")
        assert expected in out


def test_a_study_is_found_by_its_name(study, sculpt_command):
    storage = study[0].parent / "tiny.db"
    code, out, _ = sculpt_command("rank", "tiny", "--storage", storage, "--json")
    assert code == 0
    assert json.loads(out) == study[1]
    code, _, err = sculpt_command("rank", "other", "--storage", storage)
    assert code == 2
    assert "'other' is not among those kept here (tiny)" in err


def test_a_study_is_found_by_its_file(study, sculpt_command, tmp_path, monkeypatch):
    storage = study[0].parent / "tiny.db"
    code, out, _ = sculpt_command("rank", storage, "--json")
    assert (code, json.loads(out)) == (0, study[1])
    monkeypatch.chdir(tmp_path)
    code, out, _ = sculpt_command("report", storage, "--json")
    assert (code, json.loads(out)) == (0, {"report": "tiny-report.html"})
    code, _, err = sculpt_command("status", "missing.db")
    assert code == 2
    assert "there is nothing in" in err
    optuna.create_study(study_name="other", storage=f"sqlite:///{tmp_path}/two.db")
    optuna.create_study(study_name="another", storage=f"sqlite:///{tmp_path}/two.db")
    code, _, err = sculpt_command("status", "two.db")
    assert code == 2
    assert "must have one study, but two.db has 2 (other, another); give the name" in err


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
    def test_its_examples_are_true(self, command, sculpt_command, monkeypatch):
        """They are shown as they are to be typed, and are what the command takes."""
        monkeypatch.setenv("COLUMNS", "80")
        code, out, _ = sculpt_command(command.__name__, "--help")
        assert code == 0
        shown = out.split("\n  Examples:\n")[1].splitlines()
        assert 2 <= len(shown) <= 5
        for line in shown:
            check_example(line, command.__name__)

    def test_of_them_all(self, sculpt_command, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        code, out, _ = sculpt_command("--help")
        assert code == 0
        assert "..." not in out.partition("Commands:")[2], "every line says all that it has to say"
        assert max(map(len, out.splitlines())) <= 80
        for line in out.split("\n  Examples:\n")[1].splitlines():
            check_example(line, line.split()[1])


def check_example(line: str, name: str) -> None:
    """Read a command as it would be read, and the study file that it names."""
    program, command, *words = shlex.split(line, comments=True)
    assert (program, command) == ("sculpt", name)
    parsed = get_command(app).commands[name].make_context(name, list(words)).params
    study = parsed.get("study") or ""
    if study.startswith("studies/"):
        changes = overrides(parsed.get("set")).items()
        of_the_study = {key: value for key, value in changes if not key.startswith("params.")}
        sculpt.load_study(ROOT / study, of_the_study)
    assert all((ROOT / x).exists() for x in re.findall(r"studies/\w+\.yaml", line))


def next_commands(said: str) -> list[str]:
    return [line.strip() for line in said.partition("next:\n")[2].splitlines()]


class TestNext:
    """What a run names in the end is to be copied and typed."""

    SMALL = "training__epochs", "search__trials", "search__replicates"

    @pytest.fixture
    def small(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        return write_study(tmp_path, **dict(zip(self.SMALL, (0, 2, 1), strict=True))).name

    def test_the_study_is_found_again(self, small, sculpt_command):
        code, out, said = sculpt_command("run", small)
        assert (code, "next:" in out) == (0, False)
        assert next_commands(said) == [
            "sculpt report tiny.yaml",
            "sculpt export tiny.yaml --trial best",
        ]
        elsewhere = ["--set", "study=other", "--storage", "a place.db"]
        _, _, said = sculpt_command("run", small, *elsewhere)
        report, export = next_commands(said)
        assert report == "sculpt report other --storage 'a place.db'"
        for line in (report, export):
            assert sculpt_command(*shlex.split(line)[1:])[0] == 0
        assert Path("other-best").is_dir()
        _, _, said = sculpt_command("run", small, "--set", "study=third")
        report, _ = next_commands(said)
        assert report == f"sculpt report third --storage {Path('tiny.db').resolve()}"
        assert sculpt_command(*shlex.split(report)[1:])[0] == 0

    def test_what_is_not_kept_is_not_exported(self, small, sculpt_command):
        _, _, said = sculpt_command("run", small, "--set", "search.networks=none")
        assert next_commands(said)[1] == "sculpt pareto tiny.yaml"

    def test_a_document_has_nothing_beside_it(self, small, sculpt_command):
        assert "next:" not in sculpt_command("run", small, "--json")[2]

    def test_an_interrupted_run_is_named_without_its_password(
        self, small, sculpt_command, monkeypatch
    ):
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(sculpt, "run", interrupted)
        storage = "postgresql://me:secret@server/studies?password=secret"
        code, _, said = sculpt_command(
            "run", small, "--set", "budget={sparsity: 0.9}", "--storage", storage
        )
        assert code == 130
        assert said.splitlines()[1:] == [
            "  sculpt run tiny.yaml --set 'budget={sparsity: 0.9}' "
            "--storage postgresql://me@server/studies"
        ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "{study}", "--set", "training.epoch=3"], "training.epoch: must be one of"),
        (["run", "{study}", "--set", "training.epochs=soon"], "must be a valid integer, but got"),
        (["run", "{study}", "--set", "budget=4000000"], "at least one point must hold the budget"),
        (["run", "{study}", "--set", "data.name=imagenot"], "must be one of cifar10, cifar100"),
        (["run", "{study}", "--set", "data.name=mnist", "--set", "data.root=/nowhere"], "/nowhere"),
        (["run", "{study}", "--set", "training.epochs"], "--set must be KEY=VALUE"),
        (["run", "{study}", "--set", "a={"], "a value must be YAML"),
        (["run", "{study}", "--device", "tpu:7"], "--device must be auto, cpu"),
        (["run", "{study}", "--trials-per-device", "0"], "must be a whole number of at least 1"),
        (["run", "{study}", "--trials-per-device", "-1"], "or auto, but got -1"),
        (["run", "{study}", "--trials-per-device", "many"], "or auto, but got 'many'"),
        (["run", "{study}", "--storage", "mysql://u:secret@host/db"], "postgresql"),
        (["run", "nowhere.yaml"], "must be a readable YAML file"),
        (["rank", "{study}"], "run"),
        (["show", "{study}", "3"], "run"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(
    tmp_path, sculpt_command, arguments, message, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = write_study(tmp_path)
    code, out, err = sculpt_command(*[str(path) if a == "{study}" else a for a in arguments])
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("sculpt: ")
    assert "Traceback" not in err
    assert "secret" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"], "nothing may be written"


def test_wrong_questions_to_a_finished_study(study, sculpt_command):
    for arguments, message in [
        (["show", study[0], "99"], "must be base, best or one of 0 to 2, but got 99"),
        (["pareto", study[0], "--objectives", "beauty"], "objective must be one of dense_memory"),
        (["pareto", study[0], "--where", "depth > 3"], "must be a condition over"),
        (["pareto", study[0], "--where", "widening +"], "must be a condition over"),
    ]:
        code, out, err = sculpt_command(*arguments)
        assert (code, out) == (2, "")
        assert message in err


def image_tree(folder: Path, images: int = 10) -> Path:
    """Write small grey images for each of two classes, for training and testing."""
    from PIL import Image

    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number in range(images):
                image = Image.effect_noise((8, 8), 10 + number)
                image.save(folder / split / name / f"{number}.png")
    return folder


@pytest.mark.slow
def test_a_corrupt_image_is_named(tmp_path, sculpt_command):
    root = image_tree(tmp_path / "images")
    data = {"name": "image_folder", "root": str(root), "channels": 1, "validation_fraction": 0.4}
    path = write_study(tmp_path, data=data, search__trials=2, search__replicates=1)
    broken = root / "train" / "cat" / "3.png"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    code, _, err = sculpt_command("run", path)
    assert code == 2
    assert str(broken) in err
    assert not (tmp_path / "tiny.db").exists()
    broken.write_bytes(content)
    code, out, err = sculpt_command("run", path, "--json")
    assert code == 0, err
    assert json.loads(out)["trials"]["complete"] == 2


@pytest.mark.slow
def test_images_may_move_but_not_change(tmp_path, sculpt_command):
    first = image_tree(tmp_path / "first")
    data = {"name": "image_folder", "root": str(first), "channels": 1, "validation_fraction": 0.4}
    path = write_study(tmp_path, data=data, search__trials=2, search__replicates=1)
    assert sculpt_command("run", path, "--json")[0] == 0
    moved = first.rename(tmp_path / "moved")
    code, out, err = sculpt_command("run", path, "--set", f"data.root={moved}", "--json")
    assert code == 0, err
    assert json.loads(out)["trials"]["complete"] == 2
    (moved / "train" / "cat" / "3.png").write_bytes((moved / "test/dog/3.png").read_bytes())
    code, _, err = sculpt_command("run", path, "--set", f"data.root={moved}")
    assert code == 2
    assert "must be resumed on the images it was started with" in err


def test_a_foreign_or_damaged_storage_is_left_alone(tmp_path, sculpt_command):
    path = write_study(tmp_path)
    storage = tmp_path / "tiny.db"
    with sqlite3.connect(storage) as foreign:
        foreign.execute("CREATE TABLE recipes (name TEXT)")
    foreign.close()
    for content in (storage.read_bytes(), b"this is not a database" * 100):
        storage.write_bytes(content)
        for command in ("run", "rank"):
            code, out, err = sculpt_command(command, path)
            assert (code, out) == (2, "")
            assert "tiny.db" in err
            assert "Traceback" not in err
            assert storage.read_bytes() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.db", "tiny.yaml"]


def test_another_program_s_study_is_not_taken_over(tmp_path, sculpt_command):
    storage = f"sqlite:///{tmp_path / 'tiny.db'}"
    foreign = optuna.create_study(study_name="tiny", storage=storage, directions=["minimize"] * 2)
    foreign.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 0.0), n_trials=1)
    before = foreign.trials
    for command in ("run", "rank"):
        code, _, err = sculpt_command(command, write_study(tmp_path))
        assert code == 2
        assert "it belongs to another program: rename yours" in err
    assert foreign.trials == before


def test_a_newer_study_is_not_misread(tmp_path, sculpt_command):
    path = write_study(tmp_path)
    start_store(sculpt.load_study(path), "no images", 4).storage.close()
    with sqlite3.connect(tmp_path / "tiny.db") as database:
        database.execute(
            "UPDATE study_user_attributes SET value_json = '99' WHERE key = 'sculpt_format'"
        )
    database.close()
    for command in ("run", "rank"):
        code, out, err = sculpt_command(command, path)
        assert (code, out) == (2, "")
        assert "its format is 99; upgrade sculpt" in err


class TestDiagnose:
    def test_it_prints_one_document(self, tmp_path, sculpt_command):
        path = write_study(tmp_path, diagnostics__jacobian_images=2)
        code, out, err = sculpt_command(
            "diagnose",
            path,
            "--set",
            "params.widening=2",
            "--set",
            "pruning.effective=true",
            "--json",
        )
        assert code == 0, err
        document = json.loads(out)
        assert document["params"] == {"widening": 2}
        assert document["kept_parameters"] == document["budget"] == 4874
        assert sum(layer["kept"] for layer in document["layers"]) <= 4874
        assert {"density", "orthogonality_bound", "repair_steps"} <= document["layers"][0].keys()
        assert document["jacobian"].keys() == {"initial", "pruned", "repaired"}
        for step in document["jacobian"].values():
            assert {"mean", "std", "min", "max", "condition"} <= step.keys()
        assert document["effective"].keys() == {"nodes", "log10_paths", "parameters"}
        assert document["effective"]["parameters"] == 4874
        assert not (tmp_path / "tiny.db").exists()  # nothing is run

    def test_without_repair_there_is_no_third_step(self, tmp_path, sculpt_command):
        path = write_study(tmp_path, pruning__repair=False)
        arguments = ["diagnose", path, "--set", "params.widening=3"]
        code, out, _ = sculpt_command(*arguments, "--json")
        assert code == 0
        assert json.loads(out)["jacobian"]["repaired"] is None
        code, out, _ = sculpt_command(*arguments)
        assert code == 0
        assert "stages.2.0.second.conv.weight" in out
        assert "repaired" not in out

    def test_it_draws(self, tmp_path, sculpt_command):
        path, picture = write_study(tmp_path), tmp_path / "layers.png"
        code, _, err = sculpt_command(
            "diagnose", path, "--set", "params.widening=2", "--plot", picture
        )
        assert code == 0, err
        assert picture.read_bytes()[:4] == b"\x89PNG"

    @pytest.mark.parametrize(
        ("assignment", "message"),
        [
            ("params.depth=2", "parameters of the space (blocks, widening), but got 'depth'"),
            ("params.widening=7", "params.widening must be one of 2, 3, but got 7"),
            ("params.widening", "--set must be KEY=VALUE"),
            ("model.widening=0.5", "model.widening: must be greater than or equal to 1"),
            ("budget=100000000", "at most"),
        ],
    )
    def test_wrong_input(self, tmp_path, sculpt_command, assignment, message):
        code, out, err = sculpt_command("diagnose", write_study(tmp_path), "--set", assignment)
        assert (code, out) == (2, "")
        assert message in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_a_study_that_compares_writes_what_it_measured(tmp_path, sculpt_command):
    path = write_study(
        tmp_path,
        published={"source": "nobody", "figures": ["val_error"]},
        training__epochs=0,
        search__trials=2,
    )
    measured = tmp_path / "tiny.measured.yaml"
    code, out, err = sculpt_command("run", path, "--json")
    assert (code, json.loads(out)["trials"]["complete"]) == (0, 2)
    assert "measured figures" in err
    written = measured.read_bytes()
    assert b"val_error" in written
    measured.unlink()
    sculpt.run(sculpt.load_study(path))
    assert not measured.exists(), "a study without a file has no place beside it"
    sculpt.run(path)
    assert measured.read_bytes() == written

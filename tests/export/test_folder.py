"""Exported folders: what is written computes the same, and is found out when it does not."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import Undecided
from safetensors.torch import load_file, save_file
from test_lowering import trained_like
from torch import nn
from typer.testing import CliRunner

from sculpt.cli import app
from sculpt.errors import ExportError, InputError, UnknownNameError
from sculpt.export.c_code import library
from sculpt.export.folder import compare, export_network
from sculpt.export.formats import Network
from sculpt.export.loading import Loaded, load
from sculpt.export.manifest import MANIFEST
from sculpt.exports import verify
from sculpt.models import build_network
from sculpt.pruning.masks import apply_masks, count_kept, dense_masks
from sculpt.registry import FORMATS
from studies import write_study

SHAPE = (3, 16, 16)
COMPILES = any(map(shutil.which, library.COMPILERS))
QUICK_FLAGS = ("-std=c11", "-O0", "-fPIC", "-shared")
NAMES = [name for name in FORMATS.names() if name != "c" or COMPILES]
FACTS = {"verdict": "better, −1.00 [−1.50, −0.50] points"}


def network(family: str = "resnet", **options: Any) -> Loaded:
    """Return a small network as if it had been trained, and its description."""
    options = options or {"widening": 1, "blocks": 1, "stem_width": 4}
    model = build_network(family, channels=3, classes=7, pixels=256, **options)
    masks = trained_like(model, SHAPE, 0.1)
    metadata = {
        "study": "made <up>",
        "trial": 3,
        "seed": 0,
        "params": {"widening": 1},
        "counting": "paper",
        "kept_parameters": count_kept(model, masks, "paper"),
        "val_error": 0.25,
        "model": {"name": family, "options": options},
        "input": {"channels": 3, "height": 16, "width": 16, "classes": 7}
        | {"mean": [0.5] * 3, "std": [0.25] * 3, "class_names": None},
        "plugins": [],
        "record": {"val_error": {"mean": 0.25, "std": 0.01, "n": 3}, "sparsity": 0.9},
    }
    return Loaded(model.eval(), masks, metadata)


@pytest.fixture(scope="module", autouse=True)
def _quick_compiler() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "FLAGS", QUICK_FLAGS)
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every format."""
    folder = tmp_path_factory.mktemp("export") / "winner"
    export_network(network(), folder, NAMES, FACTS)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_format_computes_the_same(name: str, exported: Path) -> None:
    kind = FORMATS.get(name)
    assert kind.__doc__
    assert kind.purpose
    loaded = load(exported)
    images = torch.randn(3, *SHAPE)
    deployed = Network(loaded.model, loaded.masks, loaded.metadata, images)
    run = kind.open(exported / kind.file, deployed)
    with torch.no_grad():
        expected = loaded.model(images)
    for count in (1, 3):
        torch.testing.assert_close(run(images[:count]), expected[:count], rtol=1e-4, atol=1e-5)
    if name not in ("pt2", "state_dict"):  # which is a zip with a clock; which has zeros of a sign
        assert kind.content(deployed) == (exported / kind.file).read_bytes()
    broken = exported.parent / kind.file
    broken.write_bytes(b"not at all")
    with pytest.raises(InputError, match=re.escape(str(broken))):
        compare(kind, broken, deployed, images, expected)


def test_what_is_written_says_what_it_is(exported: Path) -> None:
    manifest = json.loads((exported / MANIFEST).read_text())
    assert {found.get("format") for found in manifest["files"].values()} - {None} == set(NAMES)
    card = (exported / "README.md").read_text()
    for part in ("25.00 ± 1.00 % (n 3)", "better, −1.00", "90.00%", "mean 0.5, 0.5, 0.5"):
        assert part in card
    names = {path.name for path in exported.iterdir()}
    assert names == {*manifest["files"], MANIFEST, "README.md"}
    assert all(path.stat().st_mode & 0o044 for path in exported.iterdir()), "others may read it"


RUN_EXAMPLES = """
import json, sys
found = []
for example in json.loads(sys.argv[1]):
    scope = {}
    exec(example, scope)
    found += [scope["logits"].tolist()] if "logits" in scope else []
assert "sculpt" not in sys.modules
print(json.dumps(found))
"""


@pytest.mark.slow
def test_the_examples_of_the_card_run_without_sculpt(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(examples) == len(NAMES)
    # On the reference images, where an example runs the network.
    for maker, kind in (("np.zeros", "numpy"), ("torch.zeros", "torch")):
        source = f"__import__('safetensors.{kind}').{kind}.load_file('reference.safetensors')"
        pattern = rf"{re.escape(maker)}\(\(1, 3, 16, 16\).*"
        examples = [re.sub(pattern, f"{source}['images'][:1]", text) for text in examples]
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", RUN_EXAMPLES, json.dumps(examples)],
        cwd=exported,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len({"onnx", "onnx_plain", "pt2", "c"} & set(NAMES))
    expected = load_file(exported / "reference.safetensors")["logits"][:1]
    for logits in found:
        torch.testing.assert_close(torch.tensor(logits), expected, rtol=1e-4, atol=1e-5)


def test_the_bundle_decoded_by_the_card_is_the_network(exported: Path) -> None:
    example = FORMATS.get("bundle").example.format(file=exported / "network.safetensors")
    scope: dict[str, Any] = {}
    exec(example, scope)
    loaded = load(exported)
    for name in loaded.masks:
        decoded = torch.from_numpy(scope["weights"][name])
        assert torch.equal(decoded, loaded.model.state_dict()[name])


def copy_of(exported: Path, folder: Path) -> Path:
    return Path(shutil.copytree(exported, folder / "copy"))


def failed(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(row["file"], row["check"]) for row in document["checks"] if row["ok"] is False]


def test_verifying(exported: Path, tmp_path: Path) -> None:
    document = verify(exported)
    assert document["ok"], failed(document)
    checked = {row["file"] for row in document["checks"] if row["check"] == "logits" and row["ok"]}
    assert checked == {FORMATS.get(name).file for name in NAMES}

    folder = copy_of(exported, tmp_path)
    state = load_file(folder / "state_dict.safetensors")
    state["classifier.bias"] += 0.1
    save_file(state, folder / "state_dict.safetensors")
    (folder / "network.pt2").unlink()
    (folder / "network.onnx").write_bytes((folder / "network.onnx").read_bytes()[:1000])
    document = verify(folder)
    assert not document["ok"]
    assert failed(document) == [
        ("network.onnx", "checksum"),
        ("network.pt2", "is there"),
        ("state_dict.safetensors", "checksum"),
        ("network.onnx", "logits"),
        ("state_dict.safetensors", "logits"),
    ]
    shown = CliRunner().invoke(app, ["verify", str(folder)])
    assert shown.exit_code == 1
    assert "NOT as it was exported" in shown.output


@pytest.mark.skipif(not COMPILES, reason="needs a C compiler: install gcc or clang")
def test_code_that_somebody_changed_is_never_run(exported: Path, tmp_path: Path) -> None:
    folder = copy_of(exported, tmp_path)
    ran = tmp_path / "ran"
    code = (folder / "network.c").read_text()
    trap = "#include <stdio.h>\n__attribute__((constructor)) static void trap(void) "
    trap += f'{{ fclose(fopen("{ran}", "w")); }}\n'
    (folder / "network.c").write_text(code + trap)
    document = verify(folder)
    assert failed(document) == [("network.c", "checksum")]
    found = {(row["file"], row["check"]): row for row in document["checks"]}
    logits = found["network.c", "logits"]
    assert logits["ok"] is None
    assert "is not run" in logits["detail"]
    assert not ran.exists()
    loaded = load(exported)
    deployed = Network(loaded.model, loaded.masks, loaded.metadata, torch.zeros(1, *SHAPE))
    FORMATS.get("c").open(folder / "network.c", deployed)
    assert ran.exists(), "the trap works"


def test_what_is_no_export(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a folder that sculpt export wrote"):
        verify(tmp_path)
    folder = copy_of(exported, tmp_path)
    for manifest in ("[]", "{", '{"format": "other"}', "[" * 100_000):
        (folder / MANIFEST).write_text(manifest)
        with pytest.raises(InputError, match=r"its manifest\.json is not read"):
            verify(folder)
    for name in ("../outside", "/etc/passwd"):
        files = {name: {"bytes": 1, "sha256": ""}}
        text = json.dumps({"format": "sculpt-export-1", "sculpt": "1", "files": files})
        (folder / MANIFEST).write_text(text)
        with pytest.raises(InputError, match="is no file of it"):
            verify(folder)


def test_where_to_and_what(exported: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="holds other files"):
        export_network(network(), taken, [], {})
    with pytest.raises(InputError, match="is a file"):
        export_network(network(), taken / "mine.txt", [], {})
    with pytest.raises(InputError, match="a folder that can be written"):
        export_network(network(), taken / "mine.txt" / "below", [], {})
    with pytest.raises(UnknownNameError, match=r"format must be one of bundle, .* got 'pickle'"):
        export_network(network(), tmp_path / "new", ["pickle"], {})
    assert [path.name for path in tmp_path.iterdir()] == ["taken"], "nothing may be left"

    again = copy_of(exported, tmp_path)
    export_network(network(), again, ["bundle"], {})
    assert not (again / "network.onnx").exists(), "an older export is replaced as a whole"
    (again / "notes.txt").write_text("keep me")
    with pytest.raises(InputError, match="holds other files"):
        export_network(network(), again, ["bundle"], {})
    assert (again / "notes.txt").read_text() == "keep me"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "taken"]


def test_weights_that_layers_share_are_exported(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    shared = Network(model.eval(), dense_masks(model), {}, torch.randn(2, 6))
    (tmp_path / "file").write_bytes(FORMATS.get("state_dict").content(shared))
    run = FORMATS.get("state_dict").open(tmp_path / "file", shared)
    torch.testing.assert_close(run(shared.images), model(shared.images).detach())


def test_a_network_that_no_graph_has_can_be_a_bundle(tmp_path: Path) -> None:
    model, loaded = Undecided(768, 7).eval(), network()
    strange = Loaded(model, dense_masks(model), loaded.metadata)
    apply_masks(model, strange.masks)
    export_network(strange, tmp_path / "bundle", ["state_dict"], {})
    with pytest.raises(InputError, match="the options of resnet must fit it"):
        verify(tmp_path / "bundle")
    deployed = Network(model, strange.masks, {}, torch.randn(2, *SHAPE))
    with pytest.raises(ExportError, match="export it as bundle, state_dict or pt2"):
        FORMATS.get("onnx").content(deployed)
    with pytest.raises(ExportError, match="export it as bundle or state_dict"):
        FORMATS.get("pt2").content(deployed)
    (tmp_path / "file").write_bytes(FORMATS.get("state_dict").content(deployed))
    run = FORMATS.get("state_dict").open(tmp_path / "file", deployed)
    torch.testing.assert_close(run(deployed.images), model(deployed.images).detach())


@pytest.mark.slow
def test_a_trial_of_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sculpt

    monkeypatch.chdir(tmp_path)
    path = write_study(tmp_path, search__trials=2, search__replicates=2)
    results = sculpt.run(path)
    runner = CliRunner()
    arguments = ["export", str(path), "--format", "onnx,state_dict", "--json"]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert list(document["files"]) == [
        "network.safetensors",
        "network.onnx",
        "state_dict.safetensors",
        "reference.safetensors",
    ]
    folder = tmp_path / "tiny-best"
    assert runner.invoke(app, ["verify", str(folder)]).exit_code == 0
    loaded = sculpt.load(folder)
    record = results.record("best")
    errors = {run["seed"]: run["val_error"] for run in record["runs"]}
    assert loaded.metadata["seed"] == min(errors, key=lambda seed: errors[seed])
    assert loaded.record["val_error"] == record["val_error"]
    assert record["params"].items() >= {"widening": loaded.metadata["params"]["widening"]}.items()

    for wrong, message in [
        (["--trial", "9"], "must be base, best or one of 0, but got 9"),
        (["--seed", "9"], "must be one of 0, 1, but got 9"),
        (["--format", "pickle"], "format must be one of"),
    ]:
        done = runner.invoke(app, [*arguments, *wrong, "--output", "elsewhere"])
        assert isinstance(done.exception, InputError)
        assert message in str(done.exception)
        assert not (tmp_path / "elsewhere").exists()

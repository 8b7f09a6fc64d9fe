"""Study files: every fault at once, each with its key, its rule, and what was given."""

from pathlib import Path

import pytest
import yaml

from sculpt.config import Study
from sculpt.errors import ConfigError
from sculpt.registry import CRITERIA
from sculpt.study_file import load_study, options_schema
from studies import TINY, write_study

ROOT = Path(__file__).resolve().parents[1]


STUDIES = [
    path
    for path in sorted((ROOT / "studies").rglob("*.yaml"))
    if not path.name.endswith(".measured.yaml")
]


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.name)
def test_every_study_that_ships_is_sound(path: Path) -> None:
    study = load_study(path)
    folder = path.parent.relative_to(ROOT / "studies")
    assert study.study == "-".join([*folder.parts, path.stem])


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        """
study: bad
data: {name: digitz}
model: {name: resnet, widening: wide, blok: 3}
space: {parameters: {widening: [2], blocks: 3}}
budget: -4
pruning: {criterion: {name: connection_sensitivity, targets: labels}, repar: true}
training: {epochs: ten, batch_size: "64"}
search: {trials: 1, objectives: [val_err]}
colour: red
"""
    )
    with pytest.raises(ConfigError) as raised:
        load_study(path)
    lines = str(raised.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    expected = {
        "data.name": "'digitz'",
        "model.widening": "'wide'",
        "model.blok": "widening, blocks, stem_width",
        "space.parameters.blocks": "got 3",
        "budget": "got -4",
        "pruning.criterion.targets": "'jacobian_1' or 'jacobian_2', but got 'labels'",
        "pruning.repar": "initializer, criterion, repair",
        "training.epochs": "got 'ten'",
        "training.batch_size": "got '64'",
        "search.trials": "got 1",
        "search.objectives": "val_error, but got 'val_err'",
        "colour": "study, data, model",
    }
    keys = [line.removeprefix(f"{path}: ").partition(":")[0] for line in lines]
    assert sorted(keys) == sorted(expected)
    for key, line in zip(keys, lines, strict=True):
        assert expected[key] in line
        assert " must " in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space__parameters": {"widening": [2, "x"]}}, "'x' does not fit: model.widening"),
        ({"space__parameters": {"depth": [2]}}, "model.depth: must be one of the keys known"),
        ({"space__parameters": {"search.seed": [2]}}, "under model, pruning, training or budget"),
        ({"space__parameters": {"widening": {"low": 3, "high": 2}}}, "low at most high"),
        (
            {"space__parameters": {"training.learning_rate": {"low": 0, "high": 1, "log": True}}},
            "low > 0",
        ),
        ({"space__parameters": {}}, "at least 1"),
        ({"space": "nowhere.yaml"}, "nowhere.yaml: must be a readable YAML file"),
        ({"study": "a/b"}, "pattern"),
        ({"plugins": ["no_such_module"]}, "plugins must be importable modules"),
    ],
)
def test_a_fault_of_the_space_or_the_whole(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(write_study(tmp_path, **changes))


def test_overrides_are_set_before_the_check(tmp_path: Path) -> None:
    path = write_study(tmp_path, training__epochs="ten")
    assert load_study(path, {"training.epochs": 3}).training.epochs == 3
    with pytest.raises(ConfigError, match="study is 'tiny'"):
        load_study(path, {"study.name": "x"})


def test_a_space_of_its_own_file_is_found_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("parameters: {widening: [2]}")
    study = load_study(write_study(tmp_path, space="space.yaml"))
    assert study.space.parameters == {"widening": [2]}


def test_sampled_values_go_where_their_keys_say(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path))
    sampled = study.with_parameters(
        {
            "widening": 3,
            "pruning.repair": False,
            "pruning.criterion.batch_norm": "batch",
            "training.learning_rate": 0.2,
        }
    )
    assert sampled.model.options == study.model.options | {"widening": 3}
    assert sampled.pruning.repair is False
    assert sampled.pruning.criterion.options == {"batch_norm": "batch"}
    assert sampled.training.learning_rate == 0.2
    assert study.model.options["widening"] == 1, "the study itself must not change"


def test_the_fingerprint_names_what_results_depend_on(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path))
    same = load_study(write_study(tmp_path, search__trials=3, storage="other.db"))
    other = load_study(write_study(tmp_path, training__epochs=2))
    assert study.fingerprint() == same.fingerprint() != other.fingerprint()


def test_a_study_survives_json(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path))
    assert Study.model_validate_json(study.model_dump_json()) == study
    assert Study.model_validate(yaml.safe_load(yaml.safe_dump(TINY))).search.trials == 4


def test_options_are_read_off_the_signature() -> None:
    schema = options_schema(CRITERIA.get("connection_sensitivity"))
    assert list(schema.model_fields) == ["targets", "batch_norm", "precision"]

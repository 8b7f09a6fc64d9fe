"""Study files: every fault at once, each with its key, its rule, and what was given."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sculpt.config import Study, describe_parameters
from sculpt.config.training import RECIPES
from sculpt.errors import ConfigError
from sculpt.quantities import Quantity
from sculpt.registry import Registry
from sculpt.study_file import load_study
from studies import write_study

ROOT = Path(__file__).resolve().parents[1]


STUDIES = [
    path
    for path in sorted((ROOT / "studies").rglob("*.yaml"))
    if not path.name.endswith(".measured.yaml")
]


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.name)
def test_every_study_that_ships_is_sound(path):
    study = load_study(path)
    folder = path.parent.relative_to(ROOT / "studies")
    assert study.study == "-".join([*folder.parts, path.stem])


def test_every_fault_is_reported_at_once(tmp_path):
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
def test_a_fault_of_the_space_or_the_whole(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_study(write_study(tmp_path, **changes))


FAULTS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"space__conditions": {"depth": {"widening": 2}}}, {"conditions.depth": "'depth'"}),
    (
        {"space__conditions": {"blocks": {"widening": 2}, "widening": {"blocks": [1, 7]}}},
        {"conditions.blocks": "(none), but got 'widening'", "conditions.widening": "but got 7"},
    ),
    (
        {
            "space__parameters": {"blocks": {"low": 1, "high": 3}, "widening": [2]},
            "space__conditions": {"widening": {"blocks": True}},
        },
        {"conditions.widening": "(from 1 to 3), but got True"},
    ),
    (
        {"space__parameters": {"widening": [2, 2], "blocks": [1, True]}},
        {"parameters.blocks": "once, but got [1, True]", "parameters.widening": "got [2, 2]"},
    ),
    (
        {"space__constraints": {"max_memory": "lots", "max_macs": -1, "max_time": 3}},
        {
            "constraints.max_macs": "but got -1",
            "constraints.max_memory": "such as '2GiB', but got 'lots'",
            "constraints.max_time": "(max_dense_parameters, max_macs, max_memory)",
        },
    ),
    (
        {"space__parameters": {"widening": {"low": 1, "high": "x"}, "blocks": []}},
        {"parameters.blocks": "but got []", "parameters.widening.high": "but got 'x'"},
    ),
    (
        {"space__parameters": {"widening": {"low": 1, "high": float("inf")}}},
        {"parameters.widening.high": "or be a finite number"},
    ),
    ({"budget": [1000, "half"]}, {"parameters.budget": "'half' does not fit: budget: must"}),
    (
        {"space__parameters": {"budget.sparsity": [0.5]}},
        {"parameters.budget.sparsity": "but budget is 'base'"},
    ),
    (
        {"space__parameters": {"blocks.3": [1], "blocks.0": [2, "x"]}, "model__blocks": [1, 1, 1]},
        {"parameters.blocks.0": "model.blocks.0: must", "parameters.blocks.3": "below 3"},
    ),
    (
        {"space__parameters": {"blocks": [[1, 2, 3], [1, "x"]]}},
        {"parameters.blocks": "[1, 'x'] does not fit: model.blocks.1: must"},
    ),
    ({"search__objectives": ["val_error", "told"]}, {"search.objectives": "only reported"}),
    (
        {"search__early_stopping": {"objectives": ["val_error", "sized", "seconds"]}},
        {"search.early_stopping.objectives": "among val_error, sized, but got 'seconds'"},
    ),
]


@pytest.mark.parametrize(("changes", "faults"), FAULTS)
def test_a_fault_is_named_by_its_key_and_rule_alone(tmp_path, monkeypatch, changes, faults):
    objectives = Registry("objective", "sculpt.quantities")
    objectives._loaded = True
    kinds = {"sized": {"before_training": True}, "told": {"report_only": True}}
    for name in ("val_error", "kept_macs", "seconds", *kinds):
        objectives.register(name)(Quantity(name, "1", "", **kinds.get(name, {})))
    monkeypatch.setattr("sculpt.study_file.OBJECTIVES", objectives)
    path = write_study(tmp_path, **changes)
    with pytest.raises(ConfigError) as raised:
        load_study(path)
    lines = [line.removeprefix(f"{path}: ") for line in str(raised.value).splitlines()]
    found = {line.partition(": ")[0].removeprefix("space."): line for line in lines}
    assert list(found) == list(faults), "each key once, in order"
    for key, words in faults.items():
        assert words in found[key]


SHUFFLED = {"name": "shuffled", "of": "synflow", "of_options": {"rounds": 0}}
NOWHERE = {"name": "shuffled", "of": "from_bundle"}
ODD = [
    # Numbers below or beyond what has a meaning, and those that are none.
    ({"training__epochs": 10**23}, "training.epochs: must be less than or equal to 100000"),
    ({"training__learning_rate": float("inf")}, "training.learning_rate: must be a finite number"),
    ({"training__batch_size": 1}, "training.batch_size: must be greater than or equal to 2"),
    ({"training__flip": "yes"}, "training.flip: must be true or false, but got 'yes'"),
    ({"search__replicates": 10**20}, "search.replicates: must be less than or equal to 1000"),
    ({"search__grace_seconds": 1e308}, "search.grace_seconds: must be less than or equal to"),
    ({"search__seed": 2**64}, "search.seed: must be less than or equal to 9007199254740992"),
    ({"search__confirm": {"seeds": 10**9}}, "search.confirm.seeds: must be less than"),
    ({"search__early_stopping": {"brackets": 10**6}}, "search.early_stopping.brackets: must be"),
    ({"budget": 10**30}, "budget: must be less than or equal to 1000000000000 or be 'base'"),
    ({"space__constraints": {"max_memory": "1e400GiB"}}, "space.constraints.max_memory: must be"),
    ({"study": "x.yaml"}, "study: must not end as the name of a study file does"),
    ({"study": "x" * 300}, "study: must have at most 100 characters"),
    ({"search__objectives": ["val_error"] * 2}, "search.objectives: must have each name once"),
    # Options, and options of options.
    ({"model__blocks": 10**6}, "model.blocks: must be less than or equal to 200"),
    ({"model__blocks": [1, 2]}, "model.blocks: must be a valid integer or have at least 3 items"),
    ({"pruning": {"criterion": {"name": "iterative_snip", "rounds": 0}}}, "criterion.rounds: must"),
    (
        {"pruning": {"criterion": {"name": "synflow_random_rounds", "interval": 0}}},
        "interval: must",
    ),
    ({"pruning": {"criterion": {"name": "grasp", "temperature": 0.0}}}, "must be greater than 0"),
    ({"pruning": {"criterion": {"name": "npb", "alpha": 1.5}}}, "criterion.alpha: must be less"),
    ({"pruning": {"criterion": {"name": "shuffled", "of": "shuffled"}}}, "of: must be one of"),
    ({"pruning": {"criterion": SHUFFLED}}, "of_options: must fit synflow (rounds: Input should"),
    ({"pruning": {"criterion": NOWHERE}}, "must fit from_bundle (bundle: Field required)"),
    ({"pruning": {"initializer": {"name": "gaussian", "variance": 0.0}}}, "variance: must be gr"),
    ({"data": {"name": "image_folder", "channels": 2}}, "data.channels: must be 1 or 3"),
    # Values of the space.
    ({"space__parameters": {"widening": [2, float("nan")]}}, "parameters.widening.1: must be"),
    (
        {"space__parameters": {"widening": [2, 10**400]}},
        "does not fit: model.widening: must be a valid number",
    ),
    ({"space__parameters": {"widening": {"low": 2, "high": 10**400}}}, "widening.high: must be le"),
    ({"space__parameters": {"widening": {"low": 1, "high": 10**6}}}, "1000000 does not fit"),
    (
        {"space__parameters": {"widening": {"low": 1.0, "high": 2.0, "step": 1e-300}}},
        "must be a valid list or have at most 1000000000 steps",
    ),
    (
        {"space__parameters": {"pruning.criterion": [SHUFFLED]}},
        "does not fit: pruning.criterion.of",
    ),
    # What is sound alone, but not together.
    ({"training__nesterov": True, "training__momentum": 0.0}, "training.nesterov: must be false"),
    (
        {"pruning": {"scope": "layer", "granularity": "channel"}},
        "pruning.granularity: must be 'weight' or 'kernel' where pruning.scope is 'layer'",
    ),
    (
        {"pruning": {"granularity": "kernel"}, "training__moving": {"rule": "rigl"}},
        "training.moving.rule: must be static where pruning.granularity is not weight",
    ),
    (
        {"training__epochs": 0, "training__moving": {"rule": "gradual_magnitude"}},
        "training.moving.rule: must not be gradual_magnitude where training.epochs is 0",
    ),
    (
        {"training__optimizer": "adamw", "training__nesterov": True},
        "training.nesterov: must be false where training.optimizer is adamw",
    ),
    (
        {"training__warm_up": 0.1},
        "training.warm_up: must be 0 where training.schedule is one_cycle",
    ),
    ({"training__moving": {"every": 5}}, "training.moving.rule: must be given"),
    ({"training__moving": {"rule": "rigl", "fraction": 0}}, "training.moving.fraction: must be gr"),
    ({"pruning__redraw": {"name": "ldy"}}, "pruning.redraw.name: must be"),
    ({"pruning__redraw": {"name": "from_bundle", "bundle": "x"}}, "pruning.redraw: must draw"),
    ({"pruning__redraw": True}, "pruning.redraw: must be"),
    (
        {"pruning": {"granularity": "rows"}},
        "must be one of weight, kernel, channel, or N:M such as",
    ),
    ({"pruning": {"granularity": "4:2"}}, "must have N below M and M at most 32 in a pattern N:M"),
    ({"pruning": {"granularity": 124}}, "pruning.granularity: must be a valid string"),
    ({"pruning": {"layer_budgets": "npb"}}, "pruning.layer_budgets: must be 'erk' or 'balanced'"),
    (
        {"pruning": {"layer_budgets": "erk", "scope": "layer"}},
        "pruning.scope: must be global where pruning.layer_budgets is erk",
    ),
    (
        {"pruning": {"layer_budgets": "erk", "effective": True}},
        "pruning.effective: must be false where pruning.layer_budgets is erk",
    ),
    (
        {"pruning": {"layer_budgets": "balanced", "granularity": "channel"}},
        "pruning.layer_budgets: must be left out where pruning.granularity is channel",
    ),
    (
        {"pruning": {"granularity": "2:4", "criterion": {"name": "npb"}}},
        "pruning.granularity: must be left out where pruning.criterion is npb",
    ),
    (
        {"pruning": {"granularity": "2:4"}, "training__moving": {"rule": "rigl"}},
        "training.moving.rule: must be static where pruning.granularity is not weight",
    ),
]


@pytest.mark.parametrize(("changes", "words"), ODD)
def test_an_odd_setting_is_one_fault(tmp_path, changes, words):
    path = write_study(tmp_path, **changes)
    with pytest.raises(ConfigError) as raised:
        load_study(path)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{path}: ")
    assert words in line


def test_settings_that_contradict_each_other_may_both_be_sampled(tmp_path):
    """Only candidates that have both are none; they are infeasible."""
    both = {"pruning.scope": ["layer", "global"], "pruning.granularity": ["channel", "weight"]}
    study = load_study(write_study(tmp_path, space__parameters=both))
    found = study.with_parameters({"pruning.scope": "layer", "pruning.granularity": "channel"})
    assert list(found.contradictions()) == [("pruning.granularity", "pruning.scope")]
    load_study(write_study(tmp_path, pruning={"scope": "layer"}, space__parameters=both))


def test_text_that_no_file_name_holds_is_refused_from_python_too(tmp_path):
    path = write_study(tmp_path)
    for text in ("a\0b", "\ud800"):
        with pytest.raises(ConfigError, match=r"artifacts: must be Unicode without NUL"):
            load_study(path, {"artifacts": text})
        with pytest.raises(ConfigError, match=r"space\.parameters\.x\.1: must be Unicode"):
            load_study(path, {"space.parameters": {"x": ["a", text]}})


def test_a_conditional_value_is_tried_where_it_is_sampled(tmp_path):
    criteria = [{"name": "synflow"}, {"name": "iterative_snip", "rounds": 9}, {"name": "random"}]
    rounds = "pruning.criterion.rounds"

    def faults(values: list[Any], wanted: Any) -> list[str]:
        path = tmp_path / "tiny.yaml"
        space = {"parameters": {"pruning.criterion": criteria, rounds: values}}
        space["conditions"] = {rounds: {"pruning.criterion": wanted}} if wanted else {}
        write_study(tmp_path, space=space)
        try:
            load_study(path)
        except ConfigError as error:
            return [line.removeprefix(f"{path}: ") for line in str(error).splitlines()]
        return []

    # The study's own criterion is another one, which has no rounds.
    assert faults([50, 100], ["synflow", "iterative_snip"]) == []
    assert faults([50, 100], ["synflow", "iterative_snip(rounds=9)"]) == []
    assert faults([50, "x"], "synflow") == [
        f"space.parameters.{rounds}: 'x' with pruning.criterion synflow does not fit: {rounds}: "
        "must be a valid integer, but got 'x'"
    ]
    unknown = (
        f"space.parameters.{rounds}: 50 with pruning.criterion random does not fit: {rounds}: "
        "must be one of the keys known here (none), but this key is not"
    )
    assert faults([50], ["synflow", "random"]) == [unknown]
    # Without a condition it is an option of every criterion that is sampled.
    assert faults([50], None) == [unknown]
    # Faults of what it depends on are not repeated for it.
    criteria.append({"name": "synflo"})
    assert [fault.partition(": ")[0] for fault in faults([50], ["synflow", "synflo"])] == [
        "space.parameters.pruning.criterion"
    ]


def test_a_value_is_tried_beside_those_that_its_conditions_depend_on(tmp_path):
    parameters = {
        "model": [{"name": "resnet"}, {"name": "vgg16"}],
        "model.activation": ["relu", "tanh"],
        "model.version": ["v2", "v3"],
    }
    conditions = {
        "model.activation": {"model": "resnet"},
        "model.version": {"model.activation": "tanh"},
    }
    path = write_study(tmp_path, space={"parameters": parameters, "conditions": conditions})
    with pytest.raises(ConfigError) as raised:
        load_study(path)
    assert str(raised.value) == (
        f"{path}: space.parameters.model.version: 'v3' with model resnet, model.activation tanh "
        "does not fit: model.version: must be 'v1' or 'v2', but got 'v3'"
    )


def test_overrides_are_set_before_the_check(tmp_path):
    path = write_study(tmp_path, training__epochs="ten")
    assert load_study(path, {"training.epochs": 3}).training.epochs == 3
    with pytest.raises(ConfigError, match="study is 'tiny'"):
        load_study(path, {"study.name": "x"})


def test_a_space_of_its_own_file_is_found_beside_the_study(tmp_path):
    (tmp_path / "space.yaml").write_text("parameters: {widening: [2]}")
    study = load_study(write_study(tmp_path, space="space.yaml"))
    assert study.space.parameters == {"widening": [2]}
    changes = {"space": "space.yaml", "space.parameters.blocks": [1]}
    study = load_study(write_study(tmp_path), changes)
    assert study.space.parameters == {"widening": [2], "blocks": [1]}


def test_sampled_values_go_where_their_keys_say(tmp_path):
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


def test_lists_and_choices_are_sampled_without_being_shared(tmp_path):
    parameters = {
        "blocks": [[1, 2, 3], 2],
        "blocks.1": [7, 8],
        "pruning.criterion": [
            {"name": "shuffled", "of": "iterative_snip", "of_options": {"rounds": 3}},
            {"name": "random"},
        ],
        "pruning.criterion.of": ["synflow"],
    }
    conditions = {
        "blocks.1": {"blocks": "[1, 2, 3]"},
        "pruning.criterion.of": {"pruning.criterion": "shuffled"},
    }
    study = load_study(
        write_study(
            tmp_path,
            space={"parameters": parameters, "conditions": conditions},
            pruning={"criterion": {"name": "shuffled", "of_options": {"targets": "gt"}}},
        )
    )
    before = study.model_dump_json()
    label = next(iter(study.space.values("pruning.criterion")))
    # Options first, as Optuna's storages may give them back.
    sampled = study.with_parameters(
        {
            "pruning.criterion.of": "synflow",
            "blocks.1": 7,
            "blocks": "[1, 2, 3]",
            "pruning.criterion": label,
        }
    )
    assert sampled.model.options["blocks"] == [1, 7, 3]
    assert sampled.pruning.criterion.options == {"of_options": {"rounds": 3}, "of": "synflow"}
    assert study.with_parameters({"blocks": [1, 2, 3]}).model.options["blocks"] == [1, 2, 3]
    own = study.with_parameters({"blocks": 2})
    assert own.model.options["blocks"] == 2
    assert own.pruning.criterion == study.pruning.criterion
    for other in (sampled, own):
        other.model.options["blocks"] = 9
        other.pruning.criterion.options["of_options"]["rounds"] = "changed"
    sampled.space.parameters["blocks"][0][0] = 9
    assert study.model_dump_json() == before


def test_a_list_of_budgets_is_a_parameter_of_the_space(tmp_path):
    path = write_study(tmp_path, budget=[1000, "base"])
    study = load_study(path)
    assert study.budget == "base"
    assert study.space.parameters["budget"] == [1000, "base"]
    assert study.with_parameters({"budget": 1000}).budget == 1000
    assert Study.model_validate(yaml.safe_load(path.read_text())) == study
    assert load_study(path, {"budget": 1000}).space.parameters.keys() == {"blocks", "widening"}
    with pytest.raises(ConfigError, match=r"budget: must be a valid integer .*, but got \[1, 2\]"):
        load_study(write_study(tmp_path, budget=[1, 2], space__parameters={"budget": [3]}))


def test_parameters_are_named_shortly_for_people():
    params = {"widening": 2, "blocks.1": 3, "pruning.criterion.batch_norm": "batch", "a.1.0": 4}
    assert describe_parameters(params) == "widening 2, blocks.1 3, batch_norm batch, a.1.0 4"


def test_the_fingerprint_names_what_results_depend_on(tmp_path):
    study = load_study(write_study(tmp_path))
    same = load_study(write_study(tmp_path, search__trials=3, storage="other.db"))
    other = load_study(write_study(tmp_path, training__epochs=2))
    assert study.fingerprint() == same.fingerprint() != other.fingerprint()
    assert Study.model_validate_json(study.model_dump_json()) == study


def test_a_recipe_fills_in_what_is_left_out(tmp_path):
    given = {"recipe": "strong", "epochs": 3}
    path = write_study(tmp_path, training=given)
    training = load_study(path).training
    for key, value in (RECIPES["strong"] | given).items():
        assert getattr(training, key) == value
    # Another one takes its place, and what the file says of its own stays.
    other = load_study(path, {"training.recipe": "short"}).training
    for key, value in (RECIPES["short"] | {"epochs": 3}).items():
        assert getattr(other, key) == value
    assert other.weight_average == 0
    assert training.weight_average > 0


def test_candidates_may_have_a_recipe_each(tmp_path):
    recipes = {"training.recipe": ["short", "strong"]}
    study = load_study(
        write_study(tmp_path, training={"recipe": "short"}, space__parameters=recipes)
    )
    short, strong = (
        study.with_parameters({"training.recipe": recipe}).training
        for recipe in ("short", "strong")
    )
    assert (short.epochs, short.weight_average) == (30, 0)
    assert (strong.epochs, strong.weight_average > 0) == (120, True)

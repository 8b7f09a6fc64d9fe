"""Networks of somebody's own callables."""

import own_lab
import pytest
import torch

from sculpt.errors import InputError
from sculpt.models import build_for
from sculpt.registry import MODELS, load_plugins, schema_of


@pytest.fixture(autouse=True)
def _asked():
    load_plugins(["own_lab", "torchvision.models"])


def build(name, *options, **given):
    return build_for("import", (5,), 2, {"factory": f"own_lab:{name}"} | given)


def test_a_factory_is_given_what_it_asks_for():
    build("table_net", units=3)
    assert own_lab.CALLS[-1] == {"input_shape": (5,), "outputs": 2}
    build("table_net", outputs=7)
    assert own_lab.CALLS[-1]["outputs"] == 7, "the study says otherwise"
    assert build("embedding_net")[0].out_features == 2


def test_what_no_initializer_draws_is_the_same_each_time():
    state = torch.get_rng_state()
    one, other = build("embedding_net"), build("embedding_net")
    assert torch.equal(one.shift, other.shift)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_that_reads_numbers_is_measured_as_well():
    with torch.device("meta"):
        network = build("dropping_rates")
    assert all(parameter.is_meta for parameter in network.parameters())
    assert network[1].p == build("dropping_rates")[1].p == 0.25


def test_what_a_factory_returns_is_a_network_with_sizes():
    with pytest.raises(InputError, match=r"0\.weight of own_lab:lazy_net .* `input_shape`"):
        build("lazy_net")
    with pytest.raises(InputError, match="own_lab:nothing returns NoneType"):
        build("nothing")
    with pytest.raises(InputError, match=r"units=-1\) it raises RuntimeError"):
        build("table_net", units=-1)


def test_annotations_of_other_people_are_checked_where_they_can_be():
    entry = MODELS.get("import")
    schema = schema_of(entry, {"factory": "torchvision.models:MobileNetV2"})
    assert {"num_classes", "width_mult", "norm_layer", "block"} < schema.model_fields.keys()
    good = {"factory": "x", "width_mult": 1, "inverted_residual_setting": [[1, 2, 3, 4]]}
    schema.model_validate(good)
    for wrong in ({"width_mult": "1"}, {"width": 1}, {"num_classes": 2.5}):
        with pytest.raises(ValueError, match="validation error"):
            schema.model_validate(good | wrong)
    free = schema_of(entry, {"factory": "torchvision.models:mobilenet_v2"})
    free.model_validate({"factory": "x", "num_classes": 2, "whatever": [1]})

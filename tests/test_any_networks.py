"""Networks of forty kinds: budgets met exactly, scores as ten lines find them, and what is named.

The large ones are examined by `python tests/any_networks.py`, which makes the documentation's
table.
"""

import pytest
from any_networks import LARGE, SMALL, examine

NOT_FOLLOWED = {"LSTM text classifier": "'lstm'", "GRU text classifier": "'gru'"}
LEFT_OUT = {
    "LSTM text classifier": "words.weight, recurrent.weight_ih_l0",
    "GRU text classifier": "words.weight, recurrent.weight_ih_l0",
    "tied language model": "places.weight",
    "cross attention, two inputs": "attention.in_proj_bias",
    "MLP mixer, gated": "scale",
    "vit, 2 blocks": "class_token, encoder.pos_embedding",
}

PORTABLE = {"mobilenet_v2, a quarter as wide", "mnasnet0_5"}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_network(name):
    found = examine(*SMALL[name])
    assert found["met"]
    assert found["scores"] < 1e-4, "another order of sums, and nothing else"
    if name in NOT_FOLLOWED:
        assert found["effective"] == NOT_FOLLOWED[name]
    else:
        kept = round(found["kept"] * found["prunable"] * found["parameters"])
        assert 0.5 * kept < found["effective"] <= kept
    assert found["reached"], "the repair came within tolerance of every layer's bound"
    assert (found["onnx"] == "verified") == (name in PORTABLE)
    if found["jacobians"][0] is not None:
        assert all(0 < value < float("inf") for value in found["jacobians"])
    left_out = [text for text in found["named"] if "is left alone" in text]
    if name in LEFT_OUT:
        assert left_out[0].endswith(LEFT_OUT[name]) or LEFT_OUT[name] in left_out[0]
    else:
        assert not left_out


def test_there_are_forty():
    assert len(SMALL | LARGE) >= 40

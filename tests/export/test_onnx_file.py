"""An ONNX file computes what its program does, in two runtimes, and is about as small as can be."""

import re
import sys
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from itertools import product
from math import lgamma, log, prod

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from programs import Builder, programs, resnet20

from sculpt.errors import InputError, NumericsError
from sculpt.export import onnx_file
from sculpt.export.formats import Network
from sculpt.export.formats.onnx import OnnxFormat
from sculpt.export.module import evaluate_program
from sculpt.export.onnx_file import encode_gaps, to_onnx
from sculpt.export.program import Conv
from sculpt.pruning.masks import dense_masks

SETTINGS = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def session_of(model, *, optimized=""):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(optimized)
    # What it says of models that it writes optimized is no fault of theirs.
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def runtimes_of(model):
    """Return ONNX Runtime, and the reference of the package `onnx` if it can do the model."""
    # Of a MaxPool of stride 1 the reference takes [top, left, bottom, right] for [top, bottom,
    # left, right].
    misread = any(
        pool.op_type == "MaxPool" and options["strides"] == [1, 1] and left != bottom
        for pool in model.graph.node
        for options in [{a.name: onnx.helper.get_attribute_value(a) for a in pool.attribute}]
        for _, left, bottom, _ in [options.get("pads", [0, 0, 0, 0])]
    )
    return [session_of(model)] + [ReferenceEvaluator(model)] * (not misread)


@cache
def openvino_core():
    with pytest.MonkeyPatch.context() as patch:
        # Importing it writes into the home folder and reports to its maker, but not in CI.
        patch.setenv("CI", "true")
        import openvino
    core = openvino.Core()
    # By default it computes in bfloat16 where the processor can.
    core.set_property(
        "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    )
    return core


def misread_by_openvino(program):
    """Return whether a convolution is one that OpenVINO takes for another.

    One of 1x1 hands its stride to a convolution before it, wrongly if it has padding itself.
    """
    return any(
        layer.weight.shape[2:] == (1, 1) and max(layer.stride) > 1 and max(layer.padding) > 0
        for layer in program.layers()
        if isinstance(layer, Conv)
    )


def images_for(program, batch):
    shape = (batch, *program.input_shape)
    return np.random.default_rng(batch).normal(size=shape).astype(np.float32)


def error_of(logits, program, images):
    """Return the largest error against float64, relative to the largest logit."""
    expected = evaluate_program(program, torch.from_numpy(images)).numpy()
    assert logits.dtype == np.float32
    assert logits.shape == expected.shape
    scale = np.abs(expected).max()
    return np.abs(logits - expected).max() / scale if scale else np.abs(logits).max()


def check_runtimes(program, *, plain):
    model = to_onnx(program, plain=plain)
    onnx.checker.check_model(model, full_check=True)
    runtimes = runtimes_of(model)
    for batch in (1, 3):
        feed = {"images": images_for(program, batch)}
        images = feed["images"].astype(np.float64)
        for runtime in runtimes:
            assert error_of(runtime.run(["logits"], feed)[0], program, images) < 1e-5


def decoded_weights(model):
    """Return by name the weights that ONNX Runtime and the reference unpack from a model."""
    names = [node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    unpacked = [name for name in names if name not in stored]
    for name in unpacked:
        opened.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    shape = [dim.dim_value or 1 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    feed = {"images": np.zeros(shape, np.float32)}
    by_runtime = []
    for runtime in runtimes_of(opened):
        found = dict(zip(unpacked, runtime.run(unpacked, feed), strict=True)) if unpacked else {}
        by_runtime.append({name: found.get(name, stored.get(name)) for name in names})
    return by_runtime


def assert_weights_are(model, program):
    expected = {f"{layer.name}.weight": layer.weight for layer in program.layers()}
    for weights in decoded_weights(model):
        assert weights.keys() == expected.keys()
        for name, weight in expected.items():
            # The sum gives zeros the sign that a pruned weight has.
            rounded = weight.astype(np.float32) + np.float32(0)
            assert weights[name].dtype == np.float32
            assert weights[name].shape == rounded.shape
            assert weights[name].tobytes() == rounded.tobytes(), name


def information_bound(program):
    """Return the fewest bytes for float32 biases, and weights that may be anywhere."""
    return sum(
        4 * kept
        + 4 * layer.bias.size
        + (lgamma(total + 1) - lgamma(kept + 1) - lgamma(total - kept + 1)) / log(2) / 8
        for layer in program.layers()
        for total, kept in [(layer.weight.size, int(np.count_nonzero(layer.weight)))]
    )


@pytest.fixture(params=["as it is", "always"], scope="module")
def _sparse_codes(request):
    """The choice of codes, as it is, and as if unpacking cost nothing: so for small weights too."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "always":
            patch.setattr(onnx_file, "UNPACKING_BYTES", 0)
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("_sparse_codes")
@SETTINGS
@given(programs(), st.sampled_from([False, False, True]))
def test_any_program_in_two_runtimes(program, plain):
    check_runtimes(program, plain=plain)


def write_onnx(program, path, *, plain=False):
    path.write_bytes(to_onnx(program, plain=plain).SerializeToString(deterministic=True))


def check_openvino(program, path, *, plain=False):
    write_onnx(program, path, plain=plain)
    core = openvino_core()
    compiled = core.compile_model(core.read_model(path), "CPU")
    for batch in (1, 3):
        images = images_for(program, batch)
        logits = compiled({"images": images})["logits"]
        assert error_of(logits, program, images.astype(np.float64)) < 1e-5


@pytest.mark.slow
@pytest.mark.usefixtures("_sparse_codes")
@settings(SETTINGS, max_examples=40)
@given(programs())
def test_any_program_in_openvino(tmp_path_factory, program):
    assume(not misread_by_openvino(program))
    check_openvino(program, tmp_path_factory.getbasetemp() / "openvino.onnx")


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("function", ["average", "max"])
@pytest.mark.parametrize("padding", [(0, 0), (1, 0), (1, 1)])
def test_pools_of_odd_sizes(function, padding, ceil_mode):
    windows, strides = ((2, 2), (3, 2), (3, 3)), ((1, 2), (2, 3), (4, 4))
    for window, stride, size in product(windows, strides, ((5, 5), (6, 7), (7, 4))):
        builder = Builder((2, *size))
        builder.pool(function, window, stride, padding, ceil_mode=ceil_mode)
        check_runtimes(builder.program(), plain=False)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    ("taken", "kinds"),
    [
        ([0, 1, 2], ["Pad"]),
        ([0, 1, 2, -1, -1], ["Pad"]),
        ([-1, 0, 1, 2, -1], ["Pad"]),
        ([2, 0], ["Gather"]),
        ([0, 1, -1], ["Pad", "Gather"]),
        ([0, -1, 1, 2], ["Pad", "Gather"]),
        ([0, 1, 2, -1, 2], ["Pad", "Gather"]),
        ([-1, -1, -1, -1], ["Pad", "Gather"]),
    ],
)
def test_channels_are_padded_where_that_suffices(taken, kinds, flat):
    builder = Builder((3,) if flat else (3, 2, 2))
    builder.channels(taken)
    program = builder.program()
    nodes = to_onnx(program).graph.node
    assert [node.op_type for node in nodes if node.op_type != "Flatten"] == kinds
    check_runtimes(program, plain=False)


CODES = {
    "whole": (1.0, set()),
    "bits": (0.5, {"Div", "Mod", "CumSum", "Gather"}),
    "short gaps": (0.03, {"CumSum", "ScatterElements"}),
    "long gaps": (1e-3, {"CumSum", "ScatterElements"}),
    "nothing": (0.0, {"ConstantOfShape"}),
}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("inputs", [1000, 1001])
def test_weights_come_back_bit_for_bit(code, inputs):
    density, kinds = CODES[code]
    builder = Builder((inputs,))
    builder.linear(63, density)
    builder.linear(5, density)
    program = builder.program()
    model = to_onnx(program)
    assert kinds <= {node.op_type for node in model.graph.node}
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types = {"short gaps": onnx.TensorProto.UINT8, "long gaps": onnx.TensorProto.UINT16}
    assert stored.get("linear1.weight.gaps") == types.get(code)
    assert_weights_are(model, program)
    assert_weights_are(to_onnx(program, plain=True), program)


@pytest.mark.usefixtures("_sparse_codes")
@settings(SETTINGS, max_examples=100)
@given(programs())
def test_any_weights_come_back_bit_for_bit(program):
    assert_weights_are(to_onnx(program), program)


@pytest.mark.parametrize("positions", [[0], [255], [256], [62999], [0, 1, 511, 62999]])
def test_few_weights_at_the_edges_of_gaps(positions):
    builder = Builder((1000,))
    builder.linear(63, 0.0)
    program = builder.program()
    program.operations[1].weight.flat[positions] = np.arange(1, len(positions) + 1)
    assert_weights_are(to_onnx(program), program)


def test_a_negative_zero_is_a_pruned_weight():
    builder = Builder((1000,))
    builder.linear(10, 0.05)
    program = builder.program()
    weight = program.operations[1].weight
    assert np.signbit(weight[weight == 0]).any()
    for plain in (False, True):
        for weights in decoded_weights(to_onnx(program, plain=plain)):
            (found,) = weights.values()
            assert not np.signbit(found[found == 0]).any()


# Of the stages of ResNet-20 that is k times as wide, pruned to the 269,000 weights of k = 1: by
# one shot, which leaves the last stage nearly empty, and by 20 rounds.
STAGES = {
    (2, "one shot"): (0.76, 0.47, 0.16),
    (4, "one shot"): (0.43, 0.153, 0.015),
    (8, "one shot"): (0.2, 0.027, 0.0003),
    (2, "20 rounds"): (0.6, 0.4, 0.19),
    (4, "20 rounds"): (0.25, 0.13, 0.033),
    (8, "20 rounds"): (0.09, 0.045, 0.0033),
}


@pytest.mark.parametrize(("k", "pruning"), STAGES)
def test_size_is_near_the_information_bound(tmp_path, k, pruning):
    program = resnet20(k, STAGES[k, pruning])
    kept = sum(np.count_nonzero(layer.weight) for layer in program.layers())
    assert kept == pytest.approx(269_000, rel=0.03)
    write_onnx(program, tmp_path / "n.onnx")
    size = (tmp_path / "n.onnx").stat().st_size
    # Positions coded by the byte, and names and nodes, cost that much.
    assert size <= 1.1 * information_bound(program)


@pytest.mark.slow
def test_a_wide_residual_network_is_unpacked_when_it_is_loaded(tmp_path):
    """A runtime that computes constants once is left with the nodes of the plain file."""
    program = resnet20(2, STAGES[2, "one shot"])
    check_runtimes(program, plain=False)
    check_openvino(program, tmp_path / "openvino.onnx")
    kinds = []
    for plain in (False, True):
        path = tmp_path / f"{plain}.onnx"
        session_of(to_onnx(program, plain=plain), optimized=path)
        kinds.append([node.op_type for node in onnx.load(path).graph.node])
    assert kinds[0] == kinds[1]
    assert "ScatterElements" not in kinds[0]


def test_the_file_says_what_it_is(tmp_path):
    builder = Builder((3, 5, 5))
    builder.conv(4, (3, 3), 0.5)
    program = builder.program()
    path = tmp_path / "network.onnx"
    write_onnx(program, path)
    model = onnx.load(path)
    assert (model.producer_name, model.producer_version) == ("sculpt", version("sculpt"))
    weight = program.operations[1].weight
    assert f"{np.count_nonzero(weight)} of {weight.size} weights" in model.doc_string
    shapes = [
        (value.name, [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [
        ("images", ["batch", 3, 5, 5]),
        ("logits", ["batch", prod(program.operations[-1].shape)]),
    ]
    written = path.read_bytes()
    write_onnx(program, path)
    assert path.read_bytes() == written


@pytest.mark.parametrize("names", [["images", "logits"], ["a", "a"], ["a", "a.weight"]])
def test_names_of_layers_may_be_those_of_anything(names):
    builder = Builder((300,))
    for name in names:
        builder.linear(40, 0.05)
        object.__setattr__(builder.operations[-1], "name", name)
    check_runtimes(builder.program(), plain=False)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e39])
@pytest.mark.parametrize("field", ["weight", "bias"])
def test_what_float32_cannot_hold_is_refused(field, value):
    builder = Builder((4,))
    builder.linear(2, 1.0)
    getattr(builder.operations[1], field).flat[1] = value
    with pytest.raises(NumericsError, match=rf"linear1\.{field}: .*{re.escape(str(value))}"):
        to_onnx(builder.program())


def test_onnx_that_is_not_installed_is_named(tmp_path, monkeypatch):
    module = torch.nn.Linear(4, 2).eval()
    network = Network(module, dense_masks(module), {}, torch.zeros(2, 4))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"onnx is not installed; pip install 'sculpt\[export\]'"):
        OnnxFormat.content(network)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime is not installed; pip install"):
        OnnxFormat.open(tmp_path / "n.onnx", network)


@pytest.mark.parametrize("plain", [False, True])
def test_groups_and_gaps_are_stored_as_such(plain):
    builder = Builder((4, 9, 9))
    builder.conv(6, (5, 3), 1.0, padding=(2, 1))
    conv = builder.operations[-1]
    weight = conv.weight[:, :2].copy()
    weight[:, :, 1::2] = 0
    builder.operations[-1] = replace(conv, weight=weight, groups=2, dilation=(2, 1))
    program = builder.program()
    stored, *_ = to_onnx(program, plain=True).graph.initializer
    assert list(stored.dims) == [6, 2, 3, 3]
    check_runtimes(program, plain=plain)


@given(
    st.lists(st.integers(0, 200_000), unique=True, max_size=20),
    st.integers(0, 400),
    st.sampled_from([np.uint8, np.uint16]),
)
def test_positions_come_back(positions, behind, dtype):
    kept = np.zeros(max(positions, default=0) + 1 + behind, bool)
    kept[positions] = True
    steps, fillers = encode_gaps(kept, dtype)
    entries = np.cumsum(steps)
    assert steps.dtype == dtype
    assert steps.shape == fillers.shape
    assert entries[~fillers].tolist() == sorted(positions)
    assert len(set(entries)) == len(entries)


@pytest.mark.parametrize(
    ("position", "steps"),
    [(0, [0]), (255, [255]), (256, [255, 1]), (510, [255, 255]), (511, [255, 255, 1])],
)
def test_only_steps_that_are_too_long_are_filled(position, steps):
    kept = np.zeros(600, bool)
    kept[position] = True
    found, fillers = encode_gaps(kept)
    assert found.tolist() == steps
    assert fillers.tolist() == [True] * (len(steps) - 1) + [False]


def test_nothing_kept_and_all_kept():
    assert encode_gaps(np.zeros(1000, bool))[0].tolist() == []
    assert encode_gaps(np.ones(4, bool))[0].tolist() == [0, 1, 1, 1]
    assert not encode_gaps(np.ones(4, bool))[1].any()

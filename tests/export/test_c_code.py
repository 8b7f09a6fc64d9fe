"""The C file of a network computes what the network does, wherever and however it is compiled."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from c_libraries import BATCHES, LANES, built, error_of, small
from hypothesis import HealthCheck, example, given, settings
from programs import programs
from torch import nn

import sculpt
from sculpt.errors import ExportError, NumericsError
from sculpt.export.c_code.generate import c_code
from sculpt.export.c_code.library import COMPILERS, FLAGS, find_compiler
from sculpt.export.lowering import lower
from sculpt.export.module import evaluate_program
from sculpt.export.program import Conv, Input, Linear, Program
from sculpt.models import build_network

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason="there is no C compiler on this machine"
)


def in_slow_tests(*lanes: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) for name in lanes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("libraries")


@pytest.mark.slow
@pytest.mark.parametrize("lanes", ["native", *in_slow_tests("16", "4", "plain")])
def test_every_operation(lanes):
    @settings(
        max_examples=12 if lanes == "native" else 5,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    @example(small())
    def agrees(program: Program) -> None:
        with TemporaryDirectory() as folder:
            # Less is optimised, so that it is compiled sooner.
            compiled = built(program, Path(folder), "-O1", *LANES[lanes])
            for batch in BATCHES:
                assert error_of(program, compiled, batch) < 1e-5

    agrees()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "options", "shape"),
    [
        ("resnet", {"blocks": 1, "widening": 2}, (3, 32, 32)),
        ("resnet", {"blocks": 1, "version": "v2", "stem_width": 8}, (1, 15, 13)),
        ("vgg16", {"widening": 0.125}, (3, 32, 32)),
        ("mlp", {"activation": "tanh"}, (1, 9, 9)),
    ],
    ids=["resnet", "resnet v2", "vgg16", "mlp"],
)
def test_pruned_networks(family, options, shape, folder):
    pixels, images = shape[1] * shape[2], torch.randn(16, *shape)
    model = build_network(family, channels=shape[0], classes=10, pixels=pixels, **options)
    sculpt.initialize(model, "variance_scaling", seed=0)
    masks = sculpt.prune(model, 5_000, inputs=images, targets="uniform")
    model(images)  # for the statistics of batch norms
    program = lower(model, masks, images)
    compiled = built(program, folder)
    assert compiled.info["nonzero_weights"] <= 5_000
    for batch in BATCHES:
        assert error_of(program, compiled, batch) < 1e-5


def test_inputs_of_more_sides_than_an_image(folder):
    shape = (2, 3, 4, 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(96, 8), nn.ReLU(), nn.Linear(8, 3))
    program = lower(model, sculpt.pruning.masks.dense_masks(model), torch.randn(2, *shape))
    assert error_of(program, built(program, folder), 3) < 1e-5


MAIN = """
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    for (int batch = 1; batch < 40; batch += 17) {
        size_t size = sculpt_workspace_bytes(batch, 1);
        float *images = calloc((size_t)batch * IMAGE, sizeof(float));
        float *logits = calloc((size_t)batch * CLASSES, sizeof(float));
        void *workspace = aligned_alloc(64, size);
        for (int i = 0; i < batch * IMAGE; i++)
            images[i] = (float)(i * 37 % 64) / 32.0f - 1.0f;
        memset(workspace, 0xff, size); /* no numbers: none of it may be read before it is set */
        if (sculpt_run(images, batch, logits, workspace, size, 1))
            return 1;
        for (int i = 0; i < batch * CLASSES; i++)
            printf("%.9g\\n", (double)logits[i]);
        free(images), free(logits), free(workspace);
    }
    return 0;
}
"""


@pytest.mark.parametrize("lanes", ["plain", *in_slow_tests("native", "4")])
def test_no_undefined_behaviour(lanes, tmp_path):
    program, executable = small(), tmp_path / "run"
    (tmp_path / "network.c").write_text(c_code(program) + MAIN)
    done = subprocess.run(
        [
            *find_compiler(),
            *("-std=c11", "-O1", "-march=native", "-fsanitize=address,undefined"),
            *("-fno-sanitize-recover", *LANES[lanes], "network.c", "-o", str(executable), "-lm"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    if done.returncode and "sanitize" in done.stderr + done.stdout:
        pytest.skip("the compiler has no sanitizers")
    assert done.returncode == 0, done.stderr
    printed = subprocess.run([executable], capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    expected = []
    for batch in (1, 18, 35):
        size = int(np.prod(program.input_shape))
        numbers = torch.arange(batch * size).mul(37).remainder(64).double() / 32 - 1
        images = numbers.view(batch, *program.input_shape)
        expected.append(evaluate_program(program, images).flatten())
    found = np.array(printed.stdout.split(), dtype=float)
    np.testing.assert_allclose(found, torch.cat(expected).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lanes", ["native", *in_slow_tests("8", "plain")])
def test_no_warnings(lanes, tmp_path):
    source = tmp_path / "network.c"
    source.write_text(c_code(small()))
    strict = ("-Wall", "-Wextra", "-Werror", "-pedantic")
    command = [*find_compiler(), *FLAGS, *strict, *LANES[lanes], str(source), "-o", os.devnull]
    done = subprocess.run([*command, "-lm"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_file_tells_nothing_of_the_machine():
    text = c_code(small())
    assert text == c_code(small())
    assert str(Path(sculpt.__file__).parents[1]) not in text
    assert str(Path.home()) not in text
    assert json.dumps(os.uname().nodename) not in text


def test_every_weight_is_exact():
    weight = np.array([[1 / 3, 0.0, -1e-30, 5e-39], [1e-60, 2.0**100, 0.1, -0.0]])
    program = Program((Input((4,)), Linear((2,), "classes", 0, weight, np.ones(2))))
    text = c_code(program)
    for value in weight.flatten().astype(np.float32):
        assert (f"0x{value.view(np.uint32):x}," in text) == (value != 0)
    assert '\\"nonzero_weights\\": 5' in text


def test_what_cannot_be_written_is_refused():
    def program(weight: np.ndarray) -> Program:
        bias, shape = np.zeros(1), (1, 1, 1)
        conv = Conv(shape, "conv", 0, weight, bias, (1, 1), (0, 0))
        return Program((Input((1, *weight.shape[2:])), conv))

    with pytest.raises(ExportError, match="at most 65,535"):
        c_code(program(np.zeros((1, 1, 256, 256))))
    with pytest.raises(NumericsError, match="finite"):
        c_code(program(np.full((1, 1, 1, 1), 1e39)))

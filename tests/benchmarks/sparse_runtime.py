"""The C file of a wide sparse ResNet-20 against ONNX Runtime, which computes its zeros too.

    python tests/benchmarks/sparse_runtime.py --widening 2 4 8

Every network keeps as many weights as a dense ResNet-20 has; that one is measured too. All run
on one thread, in turns, and what counts is the processor's time. With `--masks pruned` the weights
are those that this package keeps, one-shot; with `--masks profile` they are drawn at random with
the densities by stage of another implementation's masks, which leave more to compute.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import onnxruntime
import torch
from paper_networks import RESNET20
from paper_networks import network as resnet
from torch import nn

import sculpt
from sculpt.export.c_code.generate import c_code
from sculpt.export.c_code.library import CLibrary, compile_library
from sculpt.export.lowering import lower
from sculpt.export.module import evaluate_program
from sculpt.export.onnx_file import to_onnx
from sculpt.export.program import Conv, Program
from sculpt.pruning.masks import dense_masks

PROFILES = {
    1: (1.0, 1.0, 1.0),
    2: (0.8427, 0.3891, 0.1797),  # .47 of all multiplications are left
    4: (0.4971, 0.1107, 0.0247),  # .21
    8: (0.2302, 0.0256, 0.0003),  # .08: 174,000, 83,000 and 4,000 weights
}
"""Densities of the three stages, by widening."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--widening", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--masks", choices=["pruned", "profile"], nargs="+", default=["profile"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dense = network(1, "profile")
    base = onnx_runner(dense)
    for masks in options.masks:
        for widening in options.widening:
            program = network(widening, masks)
            part = program.macs(dense=False) / program.macs(dense=True)
            print(f"\nwidening {widening}, masks {masks}: {part:.3f} of multiplications are left")
            with c_runner(program) as compiled:
                runners = {"C": compiled, "ONNX Runtime": onnx_runner(program), "dense base": base}
                for batch in options.batch:
                    report(program, runners, batch, options.repeats)


def network(widening: int, masks: str) -> Program:
    """Return a network that was not trained: its speed does not depend on values."""
    torch.manual_seed(0)
    images = torch.randn(64, 3, 32, 32)
    model = resnet(widening=widening)
    sculpt.initialize(model, "ldi", seed=0)
    kept = dense_masks(model)
    if masks == "pruned" and widening > 1:
        kept = sculpt.prune(
            model, RESNET20, criterion="connection_sensitivity", targets="uniform", inputs=images
        )
    for _ in range(10):
        model.train()(images)  # for the statistics of batch norms
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.1)
    program = lower(model, kept, images)
    return program if masks == "pruned" else thinned(program, PROFILES[widening])


def thinned(program: Program, densities: tuple[float, ...]) -> Program:
    """Return a program whose convolutions keep some weights, by stage; the first keeps all."""
    random, operations = np.random.default_rng(0), list(program.operations)
    for place, operation in enumerate(operations):
        if isinstance(operation, Conv) and operation.weight.shape[1] > 3:
            density = densities[{32: 0, 16: 1, 8: 2}[operation.shape[1]]]
            kept = random.random(operation.weight.shape) < density
            weight = operation.weight * kept / np.sqrt(density)
            operations[place] = replace(operation, weight=weight)
    return Program(tuple(operations))


Runner = Callable[[np.ndarray], np.ndarray]


@contextmanager
def c_runner(program: Program) -> Iterator[Runner]:
    """Give the compiled C file."""
    with TemporaryDirectory() as folder:
        source, library = Path(folder, "network.c"), Path(folder, "network.so")
        source.write_text(c_code(program), encoding="utf-8")
        yield CLibrary(compile_library(source, library)).run


def onnx_runner(program: Program) -> Runner:
    """Return ONNX Runtime on one thread, with all weights as a dense array."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        to_onnx(program, plain=True).SerializeToString(), options, ["CPUExecutionProvider"]
    )
    (name,) = [given.name for given in session.get_inputs()]
    return lambda images: session.run(None, {name: images})[0]


def report(program: Program, runners: dict[str, Runner], batch: int, repeats: int) -> None:
    """Print milliseconds an image, and how many times as fast C is."""
    images = torch.randn(batch, *program.input_shape)
    expected = evaluate_program(program, images.double()).numpy()
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for runner in runners.values():
        runner(images.numpy())
    for _ in range(repeats if batch > 1 else 5 * repeats):
        for name, runner in runners.items():
            begin = process_time()
            runner(images.numpy())
            seconds[name].append(process_time() - begin)
    for name, runner in runners.items():
        ratios = np.array(seconds[name]) / np.array(seconds["C"])
        low, middle, high = np.percentile(ratios, [10, 50, 90])
        line = (
            f"  batch {batch:3}  {name:13}{median(seconds[name]) / batch * 1e3:8.3f} ms an image"
            f"  {middle:6.2f} ({low:.2f} to {high:.2f}) times C's"
        )
        if name != "dense base":
            error = np.abs(runner(images.numpy()) - expected).max() / np.abs(expected).max()
            line += f"  error {error:.1e}"
        print(line, flush=True)


if __name__ == "__main__":
    main()

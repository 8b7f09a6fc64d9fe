"""Training several seeds of one network: one after another, in processes, or stacked into one.

    python tests/benchmarks/seeds_together.py                       # two seeds, on the CPU
    python tests/benchmarks/seeds_together.py --device cuda --seeds 4 --widening 1 2 4

Three ways to take a step of each of `--seeds` networks, in turns, medians of `--repeats`: one
network after another with all threads; `torch.func.vmap` over stacked weights, which turns every
convolution into a grouped one; and a process for each, the threads divided among them. Printed
are images per second of all seeds together. In the stacked networks batch norm has no running
statistics, which only makes them faster. In float32, because with autocast torch 2.15 fails in
the stacked networks' backward pass; `--bfloat16` tries.

A script, not a test: it asserts nothing and pytest does not collect it.
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from multiprocessing.connection import Connection
from time import perf_counter

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from paper_networks import network, wait
from torch import Tensor, nn
from torch.func import functional_call, grad, replace_all_batch_norm_modules_, stack_module_state

from sculpt.training.memory import keep_freed_memory


def main() -> None:
    """Measure, and print one line for each network and way."""
    options = parse()
    for widening in options.widening:
        stacked, alone = stacked_step(options, widening), single_step(options, widening)
        threads = max(1, torch.get_num_threads() // options.seeds)
        context = mp.get_context("spawn")
        pipes, processes = [], []
        for _ in range(options.seeds):
            ours, theirs = context.Pipe()
            arguments = (theirs, options, widening, threads)
            processes.append(context.Process(target=work, args=arguments, daemon=True))
            processes[-1].start()
            pipes.append(ours)
        for pipe in pipes:
            pipe.recv()
        images = options.seeds * options.steps * options.batch_size
        rates: dict[str, list[float]] = {"one after another": [], "processes": [], "stacked": []}
        for _ in range(options.repeats):
            seconds = timed(alone, options.seeds * options.steps, options.device)
            rates["one after another"].append(images / seconds)
            start = perf_counter()
            for pipe in pipes:
                pipe.send(None)
            for pipe in pipes:
                pipe.recv()
            rates["processes"].append(images / (perf_counter() - start))
            rates["stacked"].append(images / timed(stacked, options.steps, options.device))
        for process in processes:
            process.terminate()
        for way, found in rates.items():
            ratios = [a / b for a, b in zip(found, rates["one after another"], strict=True)]
            print(
                f"k {widening}  {options.seeds} seeds  {way:18} "
                f"{statistics.median(found):9,.0f} images/s  ×{statistics.median(ratios):.2f}",
                flush=True,
            )


def resnet(options: argparse.Namespace, widening: int) -> nn.Module:
    """Build ResNet(k, n) in training mode."""
    return network(
        options.device,
        pixels=options.side**2,
        widening=widening,
        blocks=options.blocks,
        stem_width=options.stem_width,
    ).train()


def batch(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return random inputs and labels."""
    side = options.side
    inputs = torch.randn(options.batch_size, 3, side, side, device=options.device)
    labels = torch.randint(0, 10, (options.batch_size,), device=options.device)
    return inputs.to(memory_format=torch.channels_last), labels


def single_step(options: argparse.Namespace, widening: int) -> Callable[[], None]:
    """Return a step of one network."""
    model = resnet(options, widening)
    inputs, labels = batch(options)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)

    def step() -> None:
        with torch.autocast(options.device, torch.bfloat16, enabled=options.bfloat16):
            logits = model(inputs)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def stacked_step(options: argparse.Namespace, widening: int) -> Callable[[], None]:
    """Return a step of all networks at once."""
    models = [resnet(options, widening) for _ in range(options.seeds)]
    for model in models:
        replace_all_batch_norm_modules_(model)
    parameters, _ = stack_module_state(models)
    bare = copy.deepcopy(models[0]).to("meta")
    pairs = [batch(options) for _ in range(options.seeds)]
    inputs = torch.stack([pair[0] for pair in pairs])
    labels = torch.stack([pair[1] for pair in pairs])
    leaves = [parameter.detach() for parameter in parameters.values()]
    momenta = [torch.zeros_like(leaf) for leaf in leaves]

    def loss(values: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(options.device, torch.bfloat16, enabled=options.bfloat16):
            logits = functional_call(bare, values, (images,))
        return F.cross_entropy(logits.float(), targets)

    gradients = torch.func.vmap(grad(loss))

    def step() -> None:
        values = dict(zip(parameters, leaves, strict=True))
        found = list(gradients(values, inputs, labels).values())
        torch._foreach_mul_(momenta, 0.9)
        torch._foreach_add_(momenta, found)
        torch._foreach_add_(leaves, momenta, alpha=-1e-3)

    return step


def work(pipe: Connection, options: argparse.Namespace, widening: int, threads: int) -> None:
    """Take steps whenever told to, in a process of its own."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    step = single_step(options, widening)
    timed(step, 2, options.device)
    pipe.send("ready")
    while True:
        pipe.recv()
        timed(step, options.steps, options.device)
        pipe.send("done")


def timed(step: Callable[[], None], steps: int, device: str) -> float:
    """Return the seconds that some steps take."""
    start = perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return perf_counter() - start


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--widening", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--stem-width", type=int, default=16)
    parser.add_argument("--side", type=int, default=32, help="of an image, in pixels")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    keep_freed_memory()
    main()

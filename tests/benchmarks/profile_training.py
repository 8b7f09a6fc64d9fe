"""Where the time of a training step goes, and what an epoch adds to its steps.

    python tests/benchmarks/profile_training.py --widening 1 2 --steps 3 --batch 32   # on a CPU
    python tests/benchmarks/profile_training.py --device cuda --engine auto eager --steps 100
    python tests/benchmarks/profile_training.py --device cuda --steps 100 --cudnn-benchmark
    python tests/benchmarks/profile_training.py --device cuda --steps 100 --json > profile.json

The networks, recipe and images of `training.py`: ResNet(k, 3), for k > 1 pruned to 269,034
parameters and compacted, in sculpt's own loop. `--engine auto` is what a trial takes (on CUDA
captured steps, where they are faster), `eager` and `cuda_graph` are the two by themselves.

Times are taken without a profiler; then up to 20 steps are recorded by `torch.profiler`.
`busy` is the time in which at least one kernel ran, over the time of the steps; on a CPU, where
operators take the place of kernels, over that of the recorded steps. `host` is the time until
the host is done with a step that begins on an idle device: near the step's own time, the host
is the bound. `share` of a class is of the time of all kernels, on a CPU of operators without
those they call. TFLOP/s are 6 · MACs · images/s of the network as it is trained; `of matmul` is
their share of a bfloat16 matrix product. Where no kernels are recorded (without CUPTI, say), the
row says so and holds the times alone.

A script, not a test: it asserts nothing and pytest does not collect it.
"""

import argparse
import json
import os
import platform
from typing import Any

import torch
from training import load, matmul_rate, sparse_network

from sculpt.benchmark.step_profile import Extent, profile_training
from sculpt.config import Training
from sculpt.search.workers.devices import use_device

MARKDOWN_HEAD = (
    "| network | engine | images/s | ms a step | busy | kernels | µs a kernel | TFLOP/s "
    "| of matmul | conv | batch norm | elementwise | GiB |\n|" + "---|" * 13
)


def main() -> None:
    """Measure, and print tables or JSON."""
    options = parse()
    # The profiler and captured steps share a part of the driver that must not be taken down.
    os.environ.setdefault("TEARDOWN_CUPTI", "0")
    os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
    splits = load(options.data_root).to(options.device)
    device = splits.train.device  # with its number, which `cuda` has not
    use_device(device)
    torch.backends.cudnn.benchmark = options.cudnn_benchmark
    recipe = Training(
        epochs=1, batch_size=options.batch, flip=True, translate=4, precision=options.precision
    )
    product = matmul_rate(device, options.repeats)
    rows = []
    for widening in options.widening:
        model, masks = sparse_network(widening, splits, options.seed)
        for engine in options.engine:
            extent = Extent(options.steps, options.repeats, options.top)
            row = profile_training(model, masks, splits, recipe, engine=engine, extent=extent)
            found = {"widening": widening, "asked_engine": engine}
            rows.append(found | row | {"share_of_matmul": row["flops"] / product})
            if not options.json:
                print(as_text(rows[-1]), flush=True)
    machine = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "matmul_flops": product,
    }
    if options.json:
        print(json.dumps({"options": vars(options), "machine": machine, "rows": rows}, indent=2))
        return
    print(MARKDOWN_HEAD)
    for row in rows:
        print(as_markdown(row))
    print(", ".join(f"{key} {value}" for key, value in machine.items()))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widening", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument(
        "--engine", nargs="+", default=["auto"], choices=["auto", "eager", "cuda_graph"]
    )
    parser.add_argument("--steps", type=int, default=20, help="of an epoch")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3, help="epochs; medians count")
    parser.add_argument(
        "--cudnn-benchmark", action="store_true", help="let cuDNN choose algorithms by timing them"
    )
    parser.add_argument("--top", type=int, default=10, help="kernels that are named")
    parser.add_argument("--data-root", help="CIFAR-10 as folders of images; random without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def as_text(row: dict[str, Any]) -> str:
    """Lay one network out for reading."""
    step, epoch, memory = row["step"], row["epoch"], row["peak_memory"]
    lines = [
        f"ResNet({row['widening']}, 3), batches of {row['batch']}, {row['precision']}, engine "
        f"{row['engine']['name']} ({engine_reason(row['engine'])})",
        f"  {row['images_per_second']:,.0f} images/s   {step['seconds'] * 1e3:.3f} ms a step   "
        f"host {step['host_seconds'] * 1e3:.3f} ms   {row['flops'] / 1e12:.3f} TFLOP/s = "
        f"{row['share_of_matmul']:.1%} of matmul",
    ]
    if memory:
        sizes = "   ".join(f"{name} {size / 2**30:.2f}" for name, size in memory.items())
        lines.append(f"  memory in GiB: {sizes}")
    parts = "   ".join(f"{part} {share:.1%}" for part, share in epoch["shares"].items())
    lines.append(
        f"  an epoch of {epoch['steps']} steps takes {epoch['seconds']:.3f} s: {parts}; it copies "
        f"{epoch['permutation_bytes']:,} bytes in and {epoch['state_bytes']:,} out "
        f"({epoch['state_tensors']} tensors)"
    )
    if row["classes"] is None:
        return "\n".join([*lines, f"  {row['profiler']}: no kernels are known\n"])
    lines.append(
        f"  busy {step['busy_share']:.1%}   {step['kernels']:.0f} kernels a step of "
        f"{step['kernel_seconds'] * 1e6:.1f} µs   copied a step: "
        f"{step['bytes_to_device']:,.0f} bytes in, {step['bytes_from_device']:,.0f} out"
    )
    if data := row["augmentation"]:
        lines.append(
            f"  augmentation and normalising alone: {data['kernels']:.0f} kernels, "
            f"{data['busy_seconds'] * 1e6:.0f} µs, {data['share']:.1%} of the kernels' time"
        )
    lines += [
        f"  {found['share']:6.1%}  {found['seconds'] * 1e3:9.3f} ms  {found['kernels']:6.1f} ×  "
        f"{kind}"
        for kind, found in row["classes"].items()
    ]
    lines.append("  the longest:")
    lines += [
        f"  {one['share']:6.1%}  {one['kernel_seconds'] * 1e6:9.1f} µs  {one['kernels']:6.1f} ×  "
        f"{one['name'][:90]}  [{one['class']}]"
        for one in row["top"]
    ]
    return "\n".join([*lines, ""])


def engine_reason(engine: dict[str, Any]) -> str:
    """Say why steps are taken so."""
    if "reason" in engine:
        return str(engine["reason"])
    return ", ".join(f"{name} {s * 1e3:.3f} ms" for name, s in engine["seconds_per_step"].items())


def as_markdown(row: dict[str, Any]) -> str:
    """Return one row to paste into a table."""
    step, classes, memory = row["step"], row["classes"] or {}, row["peak_memory"]
    shares = [
        f"{classes[kind]['share']:.0%}" if classes else "—"
        for kind in ("convolution and matmul", "batch norm", "elementwise")
    ]
    cells = [
        f"ResNet({row['widening']}, 3)",
        row["engine"]["name"],
        f"{row['images_per_second']:,.0f}",
        f"{step['seconds'] * 1e3:.3f}",
        f"{step['busy_share']:.0%}" if classes else "—",
        f"{step['kernels']:.0f}" if classes else "—",
        f"{step['kernel_seconds'] * 1e6:.1f}" if classes else "—",
        f"{row['flops'] / 1e12:.2f}",
        f"{row['share_of_matmul']:.1%}",
        *shares,
        f"{memory['reserved'] / 2**30:.2f}" if memory else "—",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()

"""What a search with early stopping costs and finds, against training every configuration.

    python tests/benchmarks/search_cost.py --data-root DIR --seeds 3 --folder runs/search_cost

For each seed, runs `studies/mnist_search.yaml` in three ways, each kept as a study in the folder (the
same command goes on where it was interrupted): every configuration to its end; every one with early
stopping; and half as many, chosen by TPE, with early stopping. One configuration and seed gives the
same error in all of them, so the best errors can be compared directly. Prints a table, and what it
is made of as JSON. Costs are of candidates; the base is trained in each study.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import sculpt

STUDY = Path(__file__).parents[2] / "studies" / "mnist_search.yaml"

WAYS: dict[str, dict[str, Any]] = {
    "grid": {"search.early_stopping": None},
    "stopping": {},
    "tpe": {"search.sampler": "tpe", "search.trials": 19},
}


def run(way: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one study to its end, and return what it cost and found."""
    name = f"mnist_search-{way}-{seed}"
    changes = {
        "study": name,
        "storage": str(arguments.folder / f"{name}.db"),
        "search.seed": seed,
        "data.root": arguments.data_root,
    }
    results = sculpt.run(STUDY, overrides=WAYS[way] | changes, device=arguments.device)
    table = results.trials
    table = table[(table["trial"] != "base") & table["state"].isin(["complete", "stopped"])]
    # A stopped one has not come to have training seconds of its own; its seconds are all but that.
    complete = table[table["state"] == "complete"].sort_values(["val_error_mean", "kept_macs"])
    best = complete.iloc[0]
    params = {key: best[key] for key in table.columns if key.startswith("params.")}
    return {
        "study": name,
        "way": way,
        "seed": seed,
        "candidates": len(table),
        "complete": len(complete),
        "epochs": int(table["epochs"].sum()),
        "training_macs": float((table["epochs"] * table["dense_macs"]).sum()),
        "seconds": float(table["seconds"].sum()),
        "best": {key.removeprefix("params."): float(value) for key, value in params.items()},
        "val_error": float(best["val_error_mean"]),
        "correlations": {row["proxy"]: row["rho"] for row in sculpt.rank(results)["proxies"][:6]},
    }


def main() -> None:
    """Run all studies and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/search_cost"))
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.seeds):
        for way in WAYS:
            rows.append(run(way, seed, arguments))
            print(json.dumps(rows[-1]), flush=True)
    print(
        "\n| way | seed | complete of | epochs | of the grid | seconds | of the grid | best val error |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        grid = next(r for r in rows if r["way"] == "grid" and r["seed"] == row["seed"])
        print(
            f"| {row['way']} | {row['seed']} | {row['complete']} of {row['candidates']} "
            f"| {row['epochs']} | {row['epochs'] / grid['epochs']:.1%} | {row['seconds']:.0f} "
            f"| {row['seconds'] / grid['seconds']:.1%} | {row['val_error']:.2%} |"
        )
    for way in WAYS:
        if way != "grid":
            of = {r["seed"]: r["val_error"] for r in rows if r["way"] == "grid"}
            gaps = [r["val_error"] - of[r["seed"]] for r in rows if r["way"] == way]
            spread = f" ± {100 * stdev(gaps):.2f}" if len(gaps) > 1 else ""
            print(f"{way}: best error above the grid's by {100 * mean(gaps):.2f}{spread} points")


if __name__ == "__main__":
    main()

"""What a search with early stopping costs and finds, against training every configuration.

    python tests/benchmarks/search_cost.py --data-root DIR --seeds 3 --folder runs/search_cost

For each seed, runs `studies/mnist_search.yaml` in three ways, each kept as a study in the folder
(the same command goes on where it was interrupted): every configuration to its end; every one with
early stopping; and half as many, chosen by TPE, with early stopping. One configuration and seed
gives the same error in all of them, so that best errors can be compared directly.

The best of 36 is best by luck, too. So beside the error by which each way chose stands that of the
same configuration in the grids of the other seeds, which it was not chosen by. Costs are those of
the candidates; the base is trained in each study. Prints one JSON line per study, then tables.

A script, not a test: it asserts nothing and pytest does not collect it.
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
    """Run one study to its end, and return what it cost, and the errors that it knows."""
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
    complete = table[table["state"] == "complete"].sort_values(["val_error_mean", "kept_macs"])
    parameters = [column for column in table if column.startswith("params.")]
    errors = {
        tuple(row[parameters].astype(float)): float(row["val_error_mean"])
        for _, row in complete.iterrows()
    }
    return {
        "study": name,
        "way": way,
        "seed": seed,
        "candidates": len(table),
        "complete": len(complete),
        "epochs": int(table["epochs"].sum()),
        "training_macs": float((table["epochs"] * table["dense_macs"]).sum()),
        "seconds": float(table["seconds"].sum()),
        "best": next(iter(errors)),
        "parameters": [column.removeprefix("params.") for column in parameters],
        "val_error": next(iter(errors.values())),
        "errors": errors,
        "proxies": {row["proxy"]: row["rho"] for row in sculpt.rank(results)["proxies"]},
    }


def compare(rows: list[dict[str, Any]]) -> None:
    """Print what each way cost and found beside the grid of its seed."""
    grids = {row["seed"]: row for row in rows if row["way"] == "grid"}
    print("\n| way | seed | trained to the end | epochs | MACs | seconds | error | other seeds |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        grid = grids[row["seed"]]
        shares = [f"{row[key] / grid[key]:.0%}" for key in ("epochs", "training_macs", "seconds")]
        others = [g["errors"][row["best"]] for s, g in grids.items() if s != row["seed"]]
        row["elsewhere"] = mean(others) if others else float("nan")
        print(
            f"| {row['way']} | {row['seed']} | {row['complete']} of {row['candidates']} | "
            + " | ".join(shares)
            + f" | {row['val_error']:.2%} | {row['elsewhere']:.2%} |"
        )
    if len(grids) < 2:
        return
    points = [grid["errors"] for grid in grids.values()]
    noise = mean(stdev(errors[point] for errors in points) for point in points[0])
    print(f"\nspread of one configuration over seeds: {100 * noise:.2f} points on average")
    for way in WAYS:
        mine = [row for row in rows if row["way"] == way and way != "grid"]
        for key, what in (("val_error", "best error"), ("elsewhere", "error on other seeds")):
            gaps = [100 * (row[key] - grids[row["seed"]][key]) for row in mine]
            if gaps:
                print(f"{way}: {what} − the grid's: {mean(gaps):+.2f} ± {stdev(gaps):.2f} points")


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
            shown = {key: value for key, value in rows[-1].items() if key != "errors"}
            print(json.dumps(shown), flush=True)
    compare(rows)


if __name__ == "__main__":
    main()

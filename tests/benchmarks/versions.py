"""The oldest and the newest versions that pyproject.toml allows, with a part of the tests.

    python tests/benchmarks/versions.py                # each Python, its oldest and its newest
    python tests/benchmarks/versions.py --python 3.11 --end oldest -- tests/pruning -n 1

Each has a virtual environment of wheels alone, some 5 GB, which uv (`pip install uv`) makes and
which is removed afterwards; uv keeps its cache. Of a Python that cannot be had, it is only asked
whether there are wheels for it that fit together.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UV = [sys.executable, "-m", "uv"]
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
SHOWN = ("torch", "numpy", "scipy", "pandas", "pydantic", "optuna", "typer", "onnx", "onnxruntime")
TESTS = ("test_cli.py", "test_study_file.py", "test_first_study.py", "pruning/test_prune.py")
TESTS += ("compaction", "export/test_onnx_file.py", "results/test_formats.py")
TESTS += ("results/test_pareto_command.py", "search/test_samplers.py")
"""A few that meet each dependency, and take a minute; last bits are those of constraints.txt."""
NOT = "compiler or come_back"
"""What torch imports is torch's, and an old hypothesis calls flaky what a new one does not."""


def main() -> None:
    """Try and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", nargs="+", default=["3.11", "3.12", "3.13"])
    parser.add_argument("--end", nargs="+", default=list(RESOLUTIONS), choices=RESOLUTIONS)
    parser.add_argument("tests", nargs="*", help="what pytest is given, in place of TESTS")
    options = parser.parse_args()
    tests = options.tests or ["-k", f"not ({NOT})", *(f"tests/{name}" for name in TESTS)]
    print(f"| Python | end | {' | '.join(SHOWN)} | tests |")
    print("|---" * (len(SHOWN) + 3) + "|", flush=True)
    failed = False
    for python in options.python:
        for end in options.end:
            versions, outcome = tried(python, RESOLUTIONS[end], tests)
            failed |= outcome.startswith("FAILED")
            shown = (re.search(rf"^{name}==(\S+)", versions, re.MULTILINE) for name in SHOWN)
            cells = [python, end, *(found[1] if found else "" for found in shown), outcome]
            print(f"| {' | '.join(cells)} |", flush=True)
    sys.exit(failed)


def tried(python: str, resolution: str, tests: list[str]) -> tuple[str, str]:
    """Return which versions were found for a Python, a line each, and what became of the tests."""
    wanted = ["--resolution", resolution, "--only-binary", ":all:", "--all-extras"]
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/venv"
        if subprocess.run([*UV, "venv", "-q", "-p", python, place], capture_output=True).returncode:
            found = output([*UV, "pip", "compile", "-q", *wanted, "--python-version", python,
                            "--python-platform", "linux", "pyproject.toml"])  # fmt: skip
            return found, "not run: no such Python here, but there are wheels"
        install = [*UV, "pip", "install", "-q", "-p", place]
        output([*install, *wanted, "-r", "pyproject.toml"])
        output([*install, "--no-deps", "-e", "."])
        command = [f"{place}/bin/python", "-m", "pytest", "-q", "--basetemp", f"{folder}/tests"]
        done = subprocess.run(
            [*command, *tests],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        sys.stderr.write(done.stdout)
        outcome = ("FAILED: " if done.returncode else "") + done.stdout.splitlines()[-1]
        return output([*UV, "pip", "freeze", "-q", "-p", place]), outcome


def output(command: list[str]) -> str:
    """Run a command, and return what it prints; whoever reads sees what went wrong."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()

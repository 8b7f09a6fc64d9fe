"""What is said in notes about a study and its trials: Markdown, from the documents of a ranking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sculpt.config import describe_parameters
from sculpt.results.markdown import code, prose
from sculpt.results.numbers import percent, points
from sculpt.results.tables import describe_tally
from sculpt.results.verdict import verdict_sentences

ABOUT = (
    "Sparse networks, cut out of larger ones before training, against a dense network of the same "
    "size. This study holds the candidates"
)


@dataclass(frozen=True)
class Attempt:
    """One ended trial, of whichever of a store's studies, and what is known of it.

    Attributes:
        label: The candidate's number, or "base".
        state: What became of it, in the words of `trial_states`.
        params: What was sampled, or the model's options for the base.
        reason: Why it has no result.
        row: Its row of the ranking or of the confirmation.
        arm: In the confirmation, whether its mask was sculpted or shuffled.
        on_front: Whether no other trial beats it in all objectives of the study.
        plot: Path of its layer plot.
    """

    label: int | str
    state: str
    params: Mapping[str, Any]
    reason: str | None = None
    row: Mapping[str, Any] | None = None
    arm: str | None = None
    on_front: bool = False
    plot: str | None = None


def study_note(
    document: Mapping[str, Any],
    objectives: Sequence[Mapping[str, Any]],
    pages: Mapping[str, str],
    most_plots: int,
) -> str:
    """Return the note of a study.

    Args:
        document:
            What `sculpt.results.ranking.rank` says.
        objectives:
            Name, direction and unit of each, as in the document of a front.
        pages:
            Paths of the pages of the studies beside it: `base`, and `confirm` if there is one.
        most_plots:
            How many layer plots are drawn at most.
    """
    name = document["study"]
    where = f"{ABOUT}; the dense base is {_link(f'{name}/base', pages['base'])}"
    if "confirm" in pages:
        link = _link(f"{name}/confirm", pages["confirm"])
        where += f", and the confirmation on fresh seeds {link}"
    measured = ", ".join(
        f"{code(kind['name'])} ({kind['unit']}, {kind['direction']}d)" for kind in objectives
    )
    return "\n".join(
        [
            f"# {prose(name)}",
            "",
            f"{where}.",
            "",
            *(f"- {prose(sentence)}" for sentence in verdict_sentences(dict(document))),
            f"- Trials, the base included: {prose(describe_tally(document['trials']))}.",
            f"- Objectives: {measured}.",
            "",
            f"What beats what is told by {code(f'sculpt pareto {name}')}: it counts the base, and "
            "has a front for each budget. The plots here know neither.",
            "",
            f"Layer plots are drawn of the base, the front and then the best ranked, {most_plots} "
            "at most: they are artifacts of the studies, and stand in the notes of the trials.",
            "",
            f"Notes are written by {code('sculpt dashboard')} when it starts. One that you edit "
            "is yours, and is left alone.",
        ]
    )


def part_note(name: str, part: str, page: str) -> str:
    """Return the note of the study that holds the base, or the confirmation."""
    holds = {
        "base": "the dense base that the candidates are compared with",
        "confirm": "the best candidates and the base, trained again on fresh seeds",
    }
    return f"Holds {holds[part]}. The candidates, and what was found: {_link(name, page)}."


def trial_note(attempt: Attempt) -> str:
    """Return the note of a trial."""
    title = "Base" if attempt.label == "base" else f"Candidate {attempt.label}"
    if attempt.arm == "shuffled":
        title += ", its mask shuffled within layers"
    lines = [f"**{title}**: {attempt.state}" + (", on the front" if attempt.on_front else ""), ""]
    lines.append(
        f"- configuration: {code(describe_parameters(dict(attempt.params)) or 'as it stands')}"
    )
    if attempt.reason:
        lines.append(f"- why: {code(attempt.reason)}")
    if attempt.row:
        lines += _found(attempt.row)
    if attempt.plot:
        lines += ["", f"![layer sparsities]({attempt.plot})"]
    return "\n".join(lines)


def _found(row: Mapping[str, Any]) -> list[str]:
    """Return what a row of the ranking or of the confirmation says, as list items."""
    lines = []
    for key, name in (("val_error", "validation error"), ("test_error", "test error")):
        if row.get(key):
            lines.append(f"- {name}: {percent(row[key])}")
    if row.get("diverged"):
        lines.append(f"- diverged: {row['diverged']} seeds")
    if row.get("verdict") not in (None, "base"):
        against = f"candidate {row['against']}" if row.get("arm") == "shuffled" else "the base"
        lines.append(f"- against {against}: {row['verdict']}")
        if row["difference"]:
            lines[-1] += f", a difference of {points(row['difference'])} points"
    lines.append(
        f"- kept: {row['kept_parameters']:,} parameters, {row['kept_macs'] / 1e6:,.2f} M MACs"
    )
    if "sparsity" in row:
        lines[-1] += f", sparsity {row['sparsity']:.2%}"
    return lines


def _link(name: str, path: str) -> str:
    return f"[{prose(name)}]({path})"

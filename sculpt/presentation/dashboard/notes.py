"""Notes on a study and its trials: Markdown, from the documents of a ranking."""

from collections.abc import Mapping, Sequence

from sculpt.config import Params, describe_parameters
from sculpt.results.pareto.fronts import Objective
from sculpt.results.ranking import Ranking
from sculpt.results.verdict import verdict_of
from sculpt.table import code, prose
from sculpt.units import describe_tally

ABOUT = (
    "Sparse networks, cut out of larger ones before training, against a dense network of the same "
    "size. This study holds the candidates"
)


def study_note(
    document: Ranking,
    objectives: Sequence[Objective],
    pages: Mapping[str, str],
    most_plots: int,
) -> str:
    """Return the note of a study.

    Args:
        document: What `sculpt.results.ranking.rank` says.
        objectives: Name, direction and unit of each, as in the document of a front.
        pages: Paths of the pages of the studies beside it: `base`, and `confirm` if there is one.
        most_plots: How many layer plots are drawn at most.
    """
    name, verdict = document["study"], verdict_of(document)
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
            f"**{prose(verdict.headline)}**",
            "",
            *(f"- {prose(name)}: {prose(found)}" for name, found in verdict.facts.rows),
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
        "opponents": "networks that are trained like the base, to be beaten by the candidates",
    }
    return f"Holds {holds[part]}. The candidates, and what was found: {_link(name, page)}."


def trial_note(
    label: int | str,
    state: str,
    params: Params,
    reason: str | None,
    facts: Mapping[str, str],
    *,
    arm: str = "sculpted",
    on_front: bool = False,
    plot: str | None = None,
) -> str:
    """Return the note of an ended trial, of whichever of a store's studies.

    Args:
        label: The candidate's number, or "base".
        state: What became of it, in the words of `trial_states`.
        params: What was sampled, or the model's options for the base.
        reason: Why it has no result.
        facts: What the table of the ranking, or of the confirmation, says of it.
        arm: In the confirmation, whether its mask was sculpted or shuffled.
        on_front: Whether no other trial beats it in all objectives of the study.
        plot: Path of its layer plot.
    """
    title = f"Opponent {label}" if isinstance(label, str) else f"Candidate {label}"
    title = "Base" if label == "base" else title
    title += {"shuffled": ", its mask shuffled within layers", "erk": ", a random mask"}.get(
        arm, ""
    )
    lines = [f"**{title}**: {state}" + (", on the front" if on_front else ""), ""]
    lines.append(f"- configuration: {code(describe_parameters(params) or 'as it stands')}")
    if reason:
        lines.append(f"- why: {code(reason)}")
    lines += [f"- {name}: {prose(found)}" for name, found in facts.items()]
    return "\n".join([*lines, *(["", f"![layer sparsities]({plot})"] if plot else [])])


def _link(name: str, path: str) -> str:
    return f"[{prose(name)}]({path})"

"""Search for sparse networks that beat a dense one of the same size.

`import sculpt` is light: PyTorch, Optuna and pandas are imported by the first call that
needs them.

    import sculpt

    sculpt.write_study("mine.yaml")                      # a commented one to begin with
    sculpt.check("studies/digits.yaml")                  # sizes of its space; trains nothing
    study = sculpt.run("studies/digits.yaml")            # start, or go on, up to its total
    study.trials                                         # a DataFrame
    sculpt.pareto(study, ["val_error", "kept_macs"])     # a DataFrame; or of several studies
    sculpt.report(study, "digits.html")                  # one page that works offline

    sculpt.export_trial(study, "best", "winner", ["onnx"])       # a folder, with a model card
    network = sculpt.load("winner")                      # .model, .masks, .record
    sculpt.verify("winner")["ok"]                        # its files, and its recorded errors

    masks = sculpt.prune(model, budget=100_000, inputs=images)   # any torch.nn.Module
    sculpt.repair_isometry(model, masks)
    sculpt.attach_masks(optimizer, model, masks)         # training leaves the pruned weights at 0
    sculpt.move_masks(model, masks, optimizer)           # once in a while: RigL, SET
    sculpt.diagnose(model, masks, images)                # layers, Jacobians, paths
    small = sculpt.compact(model, masks, images)         # trained: the same function, smaller
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sculpt.diagnostics.report import diagnose as diagnose
    from sculpt.export.condensing import compact as compact
    from sculpt.export.loading import load as load
    from sculpt.exports import export_trial as export_trial
    from sculpt.exports import latency as latency
    from sculpt.exports import verify as verify
    from sculpt.first_study import write_study as write_study
    from sculpt.initializers import initialize as initialize
    from sculpt.launch import bench as bench
    from sculpt.launch import check as check
    from sculpt.launch import diagnose_candidate as diagnose_candidate
    from sculpt.launch import join as join
    from sculpt.launch import run as run
    from sculpt.launch import submit as submit
    from sculpt.presentation.archiving import archive as archive
    from sculpt.pruning.attaching import attach_masks as attach_masks
    from sculpt.pruning.attaching import from_torch_pruning as from_torch_pruning
    from sculpt.pruning.attaching import to_torch_pruning as to_torch_pruning
    from sculpt.pruning.masks import apply_masks as apply_masks
    from sculpt.pruning.moving import kept_at as kept_at
    from sculpt.pruning.moving import move_masks as move_masks
    from sculpt.pruning.moving import moved_fraction as moved_fraction
    from sculpt.pruning.moving import shrink_masks as shrink_masks
    from sculpt.pruning.prune import prune as prune
    from sculpt.repair.isometry import repair_isometry as repair_isometry
    from sculpt.reports import dashboard as dashboard
    from sculpt.reports import report as report
    from sculpt.reports import status as status
    from sculpt.results.comparison import compare as compare
    from sculpt.results.pareto import pareto as pareto
    from sculpt.results.ranking import rank as rank
    from sculpt.results.records import Results as Results
    from sculpt.results.records import open_results as open_results
    from sculpt.study_file import load_study as load_study

_NAMES = {
    "sculpt.diagnostics.report": ["diagnose"],
    "sculpt.export.loading": ["load"],
    "sculpt.export.condensing": ["compact"],
    "sculpt.exports": ["export_trial", "latency", "verify"],
    "sculpt.first_study": ["write_study"],
    "sculpt.launch": ["bench", "check", "diagnose_candidate", "join", "run", "submit"],
    "sculpt.pruning.attaching": ["attach_masks", "from_torch_pruning", "to_torch_pruning"],
    "sculpt.initializers": ["initialize"],
    "sculpt.repair.isometry": ["repair_isometry"],
    "sculpt.pruning.masks": ["apply_masks"],
    "sculpt.pruning.moving": ["kept_at", "move_masks", "moved_fraction", "shrink_masks"],
    "sculpt.pruning.prune": ["prune"],
    "sculpt.reports": ["dashboard", "report", "status"],
    "sculpt.presentation.archiving": ["archive"],
    "sculpt.results.comparison": ["compare"],
    "sculpt.results.pareto": ["pareto"],
    "sculpt.results.ranking": ["rank"],
    "sculpt.results.records": ["Results", "open_results"],
    "sculpt.study_file": ["load_study"],
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sculpt' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

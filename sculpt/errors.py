"""Errors that users can mend. All others are bugs and keep their traceback."""


class SculptError(Exception):
    """Base of all errors that `sculpt` raises on purpose.

    A message has three parts: the rule, what was given, and how to mend it. The command
    line prints the message alone and exits with `exit_code`.
    """

    exit_code = 1


class InputError(SculptError):
    """The user's input breaks a rule. Nothing was written or changed."""

    exit_code = 2


class ConfigError(InputError):
    """A study or search-space file has faults; the message lists all of them."""


class UnknownNameError(InputError):
    """A name is not in its registry; the message lists the names that are."""


class DataError(InputError):
    """A data set is missing, unreadable or malformed."""


class StorageError(InputError):
    """A study's storage is unreadable, foreign, or newer than this version."""


class BudgetError(InputError):
    """A parameter budget cannot be met by a network."""


class DryRankingError(SculptError):
    """Fewer scores are non-zero than weights must be kept: zeros are not a ranking."""


class NumericsError(SculptError):
    """A score, a loss or a weight stopped being a finite number."""


class CompactionError(SculptError):
    """A network's structure prevents the safe removal of channels."""


class ExportError(SculptError):
    """A network cannot be written in a format, or the written file computes something else."""


class DeviceMemoryError(SculptError):
    """A network does not fit into the memory of the device, however it is trained."""


class LostDeviceError(SculptError):
    """A device does not compute any more in this process, and would fail every later trial."""


class SculptWarning(UserWarning):
    """A request is fulfilled, but may not be what was meant."""


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value outside a closed set, where the wrong word would pick a default in silence.

    Raises:
        InputError: `value` is not one of `choices`.
    """
    if value not in choices:
        raise InputError(f"{option} must be one of {', '.join(choices)}, but got {value!r}")

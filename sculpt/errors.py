"""The errors a user can mend. Everything else is a bug and keeps its traceback."""


class SculptError(Exception):
    """Base of all errors that `sculpt` raises on purpose.

    A message has three parts: the rule, what was given, and how to mend it. The command
    line prints the message alone and exits with `exit_code`.
    """

    exit_code = 1


class InputError(SculptError):
    """What the user gave breaks a rule. Nothing was written or changed."""

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
    """A parameter budget cannot be met by the network it is asked of."""


class DryRankingError(SculptError):
    """Fewer scores are non-zero than weights must be kept: zeros are not a ranking."""


class NumericsError(SculptError):
    """A score, a loss or a weight stopped being a finite number."""


class CompactionError(SculptError):
    """A network is built in a way from which nothing can be removed safely."""


class ExportError(SculptError):
    """A network cannot be written in a format, or what was written does not compute the same."""


class DeviceMemoryError(SculptError):
    """A network does not fit into the memory of the device, in whatever way it is trained."""


class SculptWarning(UserWarning):
    """What the user asked for is done, but may not be what was meant."""


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value outside a closed set, where the wrong word would pick a default in silence.

    Raises:
        InputError: `value` is not one of `choices`.
    """
    if value not in choices:
        raise InputError(f"{option} must be one of {', '.join(choices)}, but got {value!r}")

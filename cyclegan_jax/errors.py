"""How mistakes are told: one class for what the user can mend, and one line for each.

Whatever else is raised is a fault of the program, and keeps its traceback.
"""

import contextlib
import difflib
import sys
from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """Something that the user can mend: a flag, a file, the room on a disk.

    The message is one line: what was wrong, the value seen, the value wanted, what to do.

    status: what a command that it ends exits with.
    """

    status = 2


def describe(error: BaseException) -> str:
    """An error as one printable line."""
    if isinstance(error, UserError):
        return printable(str(error))
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return printable(
            ': '.join([' and '.join(names), error.strerror] if names else [str(error)])
        )
    return printable(' '.join(str(error).split())[:300] or type(error).__name__)


def printable(text: str) -> str:
    """The text with control characters escaped: file names may hold any, and move the cursor."""
    return ''.join(
        c if c.isprintable() else c.encode('unicode_escape').decode('ascii') for c in text
    )


def tell(message: object) -> None:
    """Prints a line on stderr, whatever characters it has; a closed stderr is no error."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(printable(str(message)), file=sys.stderr, flush=True)


def shortlist(items: Iterable[object], limit: int = 4, separator: str = ', ') -> str:
    """The first `limit` items, and how many more there are."""
    items = list(map(str, items))
    more = [f'and {len(items) - limit} more'] if len(items) > limit else []
    return separator.join(items[:limit] + more)


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises UserError unless `value` is one of `choices`; suggests what may have been meant."""
    if value not in choices:
        raise UserError(
            f'{name} is {value!r}; choose one of {", ".join(map(repr, choices))}'
            f'{did_you_mean(str(value), choices)}.'
        )


def did_you_mean(value: str, choices: Sequence[str]) -> str:
    """' (did you mean ...?)' of what is near to `value`; '' if nothing is."""
    close = difflib.get_close_matches(value, choices, n=1)
    return f' (did you mean {close[0]!r}?)' if close else ''


def check_at_least(name: str, value: float, least: float) -> None:
    """Raises UserError unless `value` is a number and at least `least`."""
    if not value >= least:  # NaN is not
        raise UserError(f'{name} is {value}; it must be at least {least}.')

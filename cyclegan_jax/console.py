"""How warnings look to a user of the commands: one plain line on stderr."""

import logging
import sys

from absl import logging as absl_logging


def plain_warnings() -> None:
    """Shows warnings as 'warning: ...', without the names of loggers, threads and files."""
    absl_logging.set_verbosity(absl_logging.WARNING)  # below that, libraries talk of themselves
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter('%(message)s'))
    handler.addFilter(_lower_level)
    logging.getLogger().handlers[:] = [handler]


def _lower_level(record: logging.LogRecord) -> bool:
    record.msg, record.args = f'{record.levelname.lower()}: {record.getMessage()}', None
    return True

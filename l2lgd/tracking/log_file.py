"""The log file of a run."""

import sys
from logging import LogRecord
from logging.handlers import RotatingFileHandler


class LogFile(RotatingFileHandler):
    """A bounded file that costs no run: what cannot be written is on the terminal all the same."""

    def handleError(self, record: LogRecord) -> None:
        """Leave out a line for which the disk has no room; other errors are defects."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

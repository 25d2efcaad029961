"""The operator's mistakes: one sentence that says what is wrong, with the next command; never a traceback."""

EXIT_MISSING = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """What the operator can mend: one sentence with the next command."""

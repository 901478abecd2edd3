"""What a user's mistake raises, on every floor above the heart."""


class UserError(Exception):
    """A mistake in the command, the config or the given files.

    The message is one line that says what is wrong and what would be right; the command line
    prints it without a traceback and exits with status 2.
    """


def shown(text: str) -> str:
    """Text from a foreign file as it may stand in a message: short, and without line breaks."""
    return repr(text if len(text) <= 80 else f"{text[:80]}…")

"""What a user's mistake raises, on every floor above the heart."""

from __future__ import annotations

from collections.abc import Callable


class UserError(Exception):
    """A mistake in the command, the config or the given files.

    The message is one line with the fault and its remedy; the command line
    prints it without a traceback and exits with status 2.
    """


class IncompleteError(Exception):
    """A job that ran to its end, and whose outcome is no success: status 1, without a traceback."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def printable(text: str) -> str:
    """Foreign text as it may reach a terminal: what is invisible or moves the cursor is escaped.

    Control characters, line breaks, and marks that reorder text become ``\\x1b``, ``\\u202e`` and
    so on; blanks and letters of every script stay.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def shown(text: str) -> str:
    """Text from a foreign file for a message: shortened, and without line breaks."""
    return repr(text if len(text) <= 80 else f"{text[:80]}…")


class MissingFilesError(UserError):
    """Files that have to be downloaded first.

    Args:
        files: what is missing, each with its size.
    """

    def __init__(self, files: list[str]) -> None:
        super().__init__(
            f"missing: {', '.join(files)}; download with network access (HF_HUB_OFFLINE unset), "
            "or point suite.root and zoo.root at local copies"
        )
        self.files = files

    def __reduce__(self) -> tuple[type[MissingFilesError], tuple[list[str]]]:
        # Another process builds it from the files again, not from the message.
        return MissingFilesError, (self.files,)


def gather_missing(*steps: Callable[[], object]) -> None:
    """Run all steps and raise one ``MissingFilesError`` for what any of them lacks."""
    files: list[str] = []
    for step in steps:
        try:
            step()
        except MissingFilesError as error:
            files += error.files
    if files:
        raise MissingFilesError(files)

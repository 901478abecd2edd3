"""How a job ended, as a number: for the shell, and for whoever watches the run."""

from __future__ import annotations

from statsmerging.records.errors import UserError

#: Of a job or sweep that is not whole, after a user's mistake, after Ctrl-C, after SIGPIPE (the
#: reader of the output has left), and after SIGTERM (128 + signal, as in shells).
INCOMPLETE = 1
MISTAKE = 2
INTERRUPTED = 130
UNREAD = 141
TERMINATED = 143

#: What stopped a job from outside, by its status.
STOPPED = {INTERRUPTED: "Ctrl-C", TERMINATED: "SIGTERM"}


def exit_status(error: BaseException | None) -> int:
    """The status of a process that ends with this exception, or without one."""
    if error is None:
        return 0
    # The heart's error by its name, because whoever imports it imports torch.
    if isinstance(error, UserError) or type(error).__name__ == "MergingError":
        return MISTAKE
    # Lightning turns SIGTERM into a SystemExit without a status, which would read as success,
    # and Ctrl-C into one with status 1, which would read as a failure.
    if type(error).__name__ == "SIGTERMException":
        return TERMINATED
    if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return INTERRUPTED if isinstance(error, SystemExit | KeyboardInterrupt) else INCOMPLETE

"""Credentials are replaced before anything is written to a record or a log."""

from __future__ import annotations

import logging
import re
from typing import Any

#: Written in place of a password or token.
REDACTED = "***"

_CREDENTIALS = [
    # scheme://user:password@host; a password may hold any character, a port is no password.
    re.compile(r"(?<=://)[^\s'\"/@:]*:(?!\d{1,5}[/?#])[^\s'\"]+(?=@)"),
    # scheme://token@host
    re.compile(r"(?<=://)[^\s'\"/?#@]+(?=@)"),
    # token=…, &X-Amz-Signature=…, mlflow_password=…
    re.compile(
        r"(?i)(?<![a-z])((?:password|passwd|pwd|secret|token|api_?key|access_?key|signature|sig)=)"
        r"[^\s&'\"]+"
    ),
    # As hubs, forges and clouds write them.
    re.compile(
        r"\b(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{36,}|glpat-[\w-]{20,}"
        r"|xox[abprs]-[\w-]{20,}|AKIA[A-Z0-9]{16}|sk-[A-Za-z0-9]{32,})\b"
    ),
]


def redacted(value: Any) -> Any:
    """A copy of the value with ``REDACTED`` in place of the credentials in its texts.

    Lists and mappings are searched too. A redacted value stays as it is.
    """
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return _redacted_text(value) if isinstance(value, str) else value


class RedactingFormatter(logging.Formatter):
    """Replaces credentials in log lines and tracebacks; named in ``conf/hydra/job_logging``."""

    def format(self, record: logging.LogRecord) -> str:
        return _redacted_text(super().format(record))


def _redacted_text(text: str) -> str:
    for pattern in _CREDENTIALS:
        text = pattern.sub(rf"\g<1>{REDACTED}" if pattern.groups else REDACTED, text)
    return text

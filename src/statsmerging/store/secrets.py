"""Credentials stand in no record: what looks like one is replaced before anything is written."""

from __future__ import annotations

import logging
import re
from typing import Any

#: What stands in place of a password or token.
REDACTED = "***"


_CREDENTIALS = [
    # scheme://user:password@host; a password may hold any sign, a port is none.
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
    """A value as it may be recorded: the same, with ``REDACTED`` for credentials in its texts.

    Lists and mappings are gone through. What is redacted already stays as it is.
    """
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return _redacted_text(value) if isinstance(value, str) else value


class RedactingFormatter(logging.Formatter):
    """Log lines and tracebacks as they may be kept; named in ``conf/hydra/job_logging``."""

    def format(self, record: logging.LogRecord) -> str:
        return _redacted_text(super().format(record))


def _redacted_text(text: str) -> str:
    for pattern in _CREDENTIALS:
        text = pattern.sub(rf"\g<1>{REDACTED}" if pattern.groups else REDACTED, text)
    return text

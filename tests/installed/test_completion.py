"""The Tab key completes groups, choices and keys of the installed command in bash."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.installed.conftest import Environment, users_environment

#: What bash does with a line before the cursor when the Tab key is pressed, after docs/install.md.
PRESS_TAB = """
eval "$(statsmerging --shell-completion install=bash)"
complete -p statsmerging | grep -q hydra_bash_completion || exit 1
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=($1)
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
hydra_bash_completion
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("statsmerging gran", {"granularity="}),
        ("statsmerging -m job=re", {"job=report", "job=reproduce"}),
        ("statsmerging suite=folder suite.ro", {"suite.root="}),
    ],
)
def test_bash(installed: Environment, tmp_path: Path, typed: str, offered: set[str]) -> None:
    environment = users_environment()
    environment["PATH"] = f"{installed.folder / 'bin'}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", PRESS_TAB, "bash", typed],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == offered
    assert not list(tmp_path.iterdir())

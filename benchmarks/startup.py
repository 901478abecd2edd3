"""How long it takes until something is there: the help, and the library.

python -m benchmarks.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable

from benchmarks.measuring import median_ratio, parser, publish, seconds_in_turns

COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import statsmerging.merging": ["-c", "import statsmerging.merging"],
    "run.py --help": ["run.py", "--help"],
}


def main() -> None:
    """Measure and print one table."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=9)
    arguments = options.parse_args()
    variants = {name: command(arguments_) for name, arguments_ in COMMANDS.items()}
    seconds = seconds_in_turns(variants, 3 if arguments.small else arguments.rounds)
    rows = [
        {
            "what": name,
            "s": statistics.median(taken),
            "× import torch": median_ratio(taken, seconds["import torch"]),
        }
        for name, taken in seconds.items()
    ]
    publish(arguments.json, "startup", "Start-up", rows)


def command(arguments: list[str]) -> Callable[[], object]:
    """Run Python with these arguments, from the repository's root."""
    return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


if __name__ == "__main__":
    main()

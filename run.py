"""The command of a checkout, ``python run.py --help``; installed, it is called ``statsmerging``."""

from statsmerging.app.command_line import command

if __name__ == "__main__":
    command()

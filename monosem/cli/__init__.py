"""The command line: flags, then what they ask for, then an exit code.

`flags` knows the words that can be typed, and every other file one thing that can be asked for.
`settings` turns flags into a spec, folders and what workers must be told. Nothing is computed here,
and what is heavy is imported where it is needed, so that --help answers at once.
"""

from monosem.cli.entry import main

__all__ = ["main"]

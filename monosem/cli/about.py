"""What answers questions about monosem itself: --describe, and --completion for a shell."""

from __future__ import annotations

import argparse
from string import Template

from monosem.cli.flags import parser_of
from monosem.cli.outcomes import DONE

FILE_FLAGS = ("--gin", "--gin_file")
FOLDER_FLAGS = ("--runs", "--store", "--gather")
SCRIPT = Template("""\
# completion of monosem for bash${zsh_note}: source this, or add it to ~/.${shell}rc
${zsh_start}_monosem() {
  local word=$${COMP_WORDS[COMP_CWORD]} before=$${COMP_WORDS[COMP_CWORD-1]}
  local flags="${flags}"
  local names="${names}"
  local shipped="${shipped}"
  case $$before in
    ${file_flags}) COMPREPLY=( $$(compgen -f -X '!*.gin' -- "$$word")
      $$(compgen -d -S / -- "$$word") $$(compgen -W "$$shipped" -- "$$word") ) ;;
    ${folder_flags}) COMPREPLY=( $$(compgen -d -- "$$word") ) ;;
    --describe) COMPREPLY=( $$(compgen -W "$$names" -- "$$word") ) ;;
${choices}
    *) COMPREPLY=( $$(compgen -W "$$flags" -- "$$word") ) ;;
  esac
}
complete -o filenames -F _monosem monosem
""")


def describe(flags: argparse.Namespace) -> int:
    """Prints every class that can be bound, the classes of a kind, or one class with its fields."""
    from monosem.describing.catalog import catalog, find
    from monosem.describing.page import overview_text, part_text

    parts = catalog()
    if not flags.describe:
        print(overview_text(parts))
        return DONE
    found = find(flags.describe, parts)
    print(part_text(found[0], parts) if len(found) == 1 else overview_text(found))
    return DONE


def print_completion(flags: argparse.Namespace) -> int:
    """Prints a script that a shell reads once; completing starts no Python."""
    print(completion(flags.completion), end="")
    return DONE


def completion(shell: str) -> str:
    """The script: flags and their choices, Gin files, the classes of --describe."""
    from monosem.describing.catalog import catalog
    from monosem.specs.gin_reader import shipped_files

    actions = parser_of("monosem")._actions
    flags = [name for action in actions for name in action.option_strings]
    choices = [
        f"    {'|'.join(action.option_strings)}) COMPREPLY=( "
        f'$(compgen -W "{" ".join(action.choices)}" -- "$word") ) ;;'
        for action in actions
        if action.choices
    ]
    is_zsh = shell == "zsh"
    return SCRIPT.substitute(
        shell=shell,
        zsh_note=" and zsh" if is_zsh else "",
        zsh_start="autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"
        if is_zsh
        else "",
        flags=" ".join(flags),
        names=" ".join(part.name for part in catalog() if part.is_own),
        shipped=" ".join(shipped_files()),
        file_flags="|".join(FILE_FLAGS),
        folder_flags="|".join(FOLDER_FLAGS),
        choices="\n".join(choices),
    )

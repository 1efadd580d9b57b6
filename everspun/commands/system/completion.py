"""Print what makes a shell complete `everspun`'s commands and options:
`source <(everspun completion)`, in bash or, after `autoload bashcompinit && bashcompinit`, in
zsh."""

import argparse
from collections.abc import Mapping
from importlib import import_module

SCRIPT = """\
_everspun() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" words="{commands}"
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then words="{commands}"; fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _everspun everspun
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(options: argparse.Namespace) -> int:
    from everspun.__main__ import COMMANDS

    print(script({name: module for name, (module, _) in COMMANDS.items()}), end="")
    return 0


def script(modules: Mapping[str, str]) -> str:
    """`modules`: command -> the module whose `arguments` says what it takes."""
    cases = [f'    {name}) words="{" ".join(_words(modules[name]))}";;' for name in modules]
    return SCRIPT.format(
        commands=" ".join([*modules, "--help", "--version"]), cases="\n".join(cases)
    )


def _words(module: str) -> list[str]:
    """Options and fixed words of a command."""
    parser = argparse.ArgumentParser()
    import_module(module).arguments(parser)
    words: list[str] = []
    for action in parser._actions:
        words += [word for word in action.option_strings if word.startswith("--")]
        if not action.option_strings and action.choices:
            words += [str(choice) for choice in action.choices]
    return words

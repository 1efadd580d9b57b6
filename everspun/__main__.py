"""`everspun`: the command line."""

import argparse
import contextlib
import difflib
import json
import os
import sys
from importlib import import_module

from everspun import __version__

#: Exit codes: Ctrl-C; a pipe that nobody reads.
INTERRUPTED, NOBODY_READS = 130, 141
#: Options that stand before a command, or without one.
OWN_OPTIONS = ("--help", "--version")

#: They loop over little: to load what was compiled would cost more than it saves.
INTERPRETED = ("status",)

#: name -> (module, one line of help); each module has `arguments(parser)` and `run(options) -> exit
#: code`.
COMMANDS = {
    "demo": (
        "everspun.commands.system.demo",
        "the main job on a real log, from nothing: broker, all roles, audit, report",
    ),
    "run": (
        "everspun.commands.system.run",
        "run all roles of a config on your own Kafka until stopped",
    ),
    "role": ("everspun.commands.system.role", "run one process of one role (what `run` starts)"),
    "broker": ("everspun.commands.system.broker", "a broker on loopback to try things out with"),
    "topics": (
        "everspun.commands.system.topics",
        "create or check the topics; least rights",
    ),
    "status": (
        "everspun.commands.system.status",
        "what every stage does and waits for; exit 1 when a stated limit is broken",
    ),
    "audit": (
        "everspun.commands.system.audit",
        "check the promise: every impression once, every batch once, every cut whole",
    ),
    "replay": (
        "everspun.commands.data.replay",
        "replay a history into the topics in accelerated event time",
    ),
    "retrain": (
        "everspun.commands.training.retrain",
        "train another model from history, beside the live one",
    ),
    "models": (
        "everspun.commands.training.models",
        "the models of a store side by side; which one replicas serve",
    ),
    "archive": (
        "everspun.commands.data.archive",
        "list, verify or read what the archive of examples holds",
    ),
    "simulate": (
        "everspun.commands.data.simulate",
        "write simulated traffic with a known truth to a file",
    ),
    "events": (
        "everspun.commands.data.events",
        "check events of a file or topic: field, value and fix of each bad one",
    ),
    "trace": (
        "everspun.commands.data.trace",
        "what became of one event, from its arrival to the model that serves it",
    ),
    "quarantine": (
        "everspun.commands.data.quarantine",
        "list, show or add records that could not be used",
    ),
    "lost": (
        "everspun.commands.data.lost",
        "declare input lost that is gone: the way on for a partition that stopped",
    ),
    "clock": (
        "everspun.commands.data.clock",
        "set back the times of inputs that clocks ahead have stamped, so labels go on",
    ),
    "fraud": (
        "everspun.commands.data.fraud",
        "list or show what was rejected and why; allow or ban a source",
    ),
    "forget": (
        "everspun.commands.data.forget",
        "forget a person: no further training, what was learned is taken back",
    ),
    "breaker": (
        "everspun.commands.data.breaker",
        "what is withheld from training; withhold or release a scope",
    ),
    "checkpoints": ("everspun.commands.training.checkpoints", "list, show or restore checkpoints"),
    "predict": (
        "everspun.commands.training.predict",
        "answer one row by hand, and say what each feature adds",
    ),
    "inspect": (
        "everspun.commands.training.inspect",
        "what a key has learned: weights, state, age, last push",
    ),
    "pause": (
        "everspun.commands.training.pause",
        "stop training; labels, checkpoints and serving go on",
    ),
    "resume": ("everspun.commands.training.pause", "start training again"),
    "staleness": (
        "everspun.commands.training.staleness",
        "show or set how far learners may run ahead of each other",
    ),
    "learners": (
        "everspun.commands.training.learners",
        "start or stop learner processes while training goes on",
    ),
    "shards": (
        "everspun.commands.training.shards",
        "change the number of shards while training goes on",
    ),
    "config": (
        "everspun.commands.system.config",
        "list the keys of the configuration, or print an example file",
    ),
    "completion": (
        "everspun.commands.system.completion",
        "print what makes a shell complete commands and options",
    ),
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="everspun",
        description="Streaming continuous training with a parameter server, for a shop's click "
        "model.",
    )
    top.add_argument("--version", action="version", version=f"everspun {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, help_line) in COMMANDS.items():
        commands.add_parser(name, help=help_line, description=help_line, add_help=False)
    return top


def misplaced(given: list[str]) -> str:
    """Where an option goes that stands before the command; "" for the few that stand there."""
    option, _, _ = given[0][:100].partition("=")
    if option == "-h" or any(len(option) > 2 and one.startswith(option) for one in OWN_OPTIONS):
        return ""
    command = next((one for one in given[1:] if one in COMMANDS), "COMMAND")
    return f"option {option!r} stands behind the command: `everspun {command} {option} ...`"


def unknown(command: str) -> str:
    """What is said of a command that there is not; "" of one that there is."""
    if command in COMMANDS:
        return ""
    found = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {found[0]!r}?" if found else f"known are {', '.join(COMMANDS)}"
    return f"unknown command {command[:100]!r}; {hint}"


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    if arguments is None and given and given[0] in INTERPRETED:
        os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # as long as nothing is loaded
    if given and (wrong := misplaced(given) if given[0].startswith("-") else unknown(given[0])):
        print(f"everspun: {wrong}", file=sys.stderr)
        if "--json" in given and sys.stdout is not None:
            print(json.dumps({"command": given[0], "exit_code": 2, "error": wrong}))
        return 2
    if not given or given[0] not in COMMANDS:
        parser().parse_args(given[:1])  # prints help or the error, and exits
    try:
        return answered(given)
    except BrokenPipeError:
        _drop_output()
        return NOBODY_READS
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:  # a full disk behind standard output
        _drop_output()
        print(f"everspun: standard output: {error.strerror or error}", file=sys.stderr)
        return 2


def answered(given: list[str]) -> int:
    """Run a command, whose answer is JSON where that is asked for. Raises OSError where standard
    output takes nothing."""
    from everspun.commands import CommandAnswer, json_asked

    for stream in (sys.stdout, sys.stderr):  # what a terminal cannot show is shown escaped
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not json_asked(given):
        code = performed(given)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    answer = CommandAnswer(given[0], sys.stdout)
    with contextlib.redirect_stdout(answer):
        try:
            code = performed(given)
        except SystemExit as ended:
            if not ended.code:  # --help
                raise
            code = int(ended.code) if isinstance(ended.code, int) else 1
        except KeyboardInterrupt:
            answer.error, code = "interrupted", INTERRUPTED
    answer.end(code)
    return code


def performed(given: list[str]) -> int:
    """Run a command; what people can cause is told in a line. Returns the exit code."""
    name = given[0]
    # with it come the libraries, which `--help` of all commands does not need
    from everspun.commands import CommandParser, json_option, mistakes

    if line := mistakes.unreadable_argument(given):
        return mistakes.say(f"everspun: {line}")
    try:
        module = import_module(COMMANDS[name][0])
        own = CommandParser(prog=f"everspun {name}", description=module.__doc__)
        own.set_defaults(command=name)
        module.arguments(own)
        json_option(own)
        return int(module.run(own.parse_args(given[1:])))
    except BrokenPipeError:
        raise
    except Exception as error:
        return mistakes.report(name, error)


def _drop_output() -> None:
    """Or the interpreter tries to write the rest at its end, and complains."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())

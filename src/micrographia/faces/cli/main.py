"""The command `micrographia`: finds the command, calls it, and turns what went wrong into a message and a code.

A MicrographiaError is a paragraph on standard error and exit code 1, also with --json (standard output then stays
empty). `verify` and `doctor` print what they found and end with 1 where that is bad. Any other exception is a defect
here and keeps its traceback. Ctrl-C ends with 75.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from micrographia.core.errors import Interrupted, MicrographiaError
from micrographia.faces.cli.commands import COMMANDS, Command, find, group_text, help_text, nearest

FAILED, USAGE, INTERRUPTED = 1, 2, 75


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; gives the exit code. `argv` is without the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    _forgive_unprintable()
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0 if words else USAGE
    if words[0] == "--version":
        return _version()
    command, rest = find(words)
    if command is None and words[1:] in (["-h"], ["--help"]) and (text := group_text(words[0])):
        print(text, end="")
        return 0
    if command is None:
        return _unknown(words[0])
    return _guarded(command, rest)


def _guarded(command: Command, words: list[str]) -> int:
    try:
        module = import_module(f"micrographia.faces.cli.{command.module}")
        return getattr(module, command.function)(words, *command.about)
    except SystemExit as leaving:  # tyro's way to end after --help and after a wrong flag
        return _code(leaving)
    except KeyboardInterrupt:
        _say("Interrupted.")
        return INTERRUPTED
    except Interrupted as error:
        _say(str(error))
        return INTERRUPTED
    except MicrographiaError as error:
        _say(f"micrographia: {error}")
        return FAILED
    except BrokenPipeError:  # whoever read our output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if _lacks_memory(error):  # the sweeps and attribution have tried with less
            _say(
                "micrographia: this does not fit into the device's memory. Give fewer or shorter prompts, or another "
                "--device."
            )
            return FAILED
        traceback.print_exc()
        _say(
            "micrographia: this should not have happened, and is a defect of micrographia. Please report it with the "
            "lines above, the command, and the output of `micrographia doctor`. Files that were written are whole."
        )
        return FAILED


def _lacks_memory(error: Exception) -> bool:
    """torch's own class on a GPU; on a CPU it raises a RuntimeError of the allocator, or of a size past 64 bits."""
    told = ("can't allocate memory", "Storage size calculation overflowed")
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and any(words in str(error) for words in told))


def _code(leaving: SystemExit) -> int:
    if isinstance(leaving.code, str):
        _say(leaving.code)
        return FAILED
    return leaving.code or 0


def _unknown(word: str) -> int:
    if group := [command.name for command in COMMANDS if command.name.startswith(f"{word} ")]:
        _say(f"micrographia: {word} needs a second word. There are {', '.join(group)}.")
        return USAGE
    near = nearest(word)
    hint = f"Did you mean {' or '.join(repr(name) for name in near)}?" if near else "See `micrographia --help`."
    _say(f"micrographia: there is no command {word!r}. {hint}")
    return USAGE


def _version() -> int:
    from importlib.metadata import version  # slow, and only this needs it

    print(f"micrographia {version('micrographia')}")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _forgive_unprintable() -> None:
    """A terminal without Unicode shows a question mark instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Prints the runnable blocks of a page as one script for bash.

    <!-- run -->              the block of shell that follows is run
    <!-- run: PATH -->        the same, if there is such a path
    <!-- file: NAME -->       the block that follows is written to the file
    <!-- check: COMMAND -->   must succeed, after the block before

Blocks without such a line before them are only read.
"""

import pathlib
import re
import shlex
import sys

MARK = re.compile(r"^<!-- (run|file|check)(?:: (.*?))? -->$")


def script(page):
    lines = enumerate(page.read_text().splitlines(), start=1)
    yield "at=start"
    for number, line in lines:
        mark = MARK.match(line)
        if not mark:
            continue
        kind, argument = mark.groups()
        yield f"at={shlex.quote(f'{page}:{number}')}"
        if kind == "check":
            yield argument
            continue
        block = list(fenced(lines, f"{page}:{number}"))
        match kind, argument:
            case "run", None:
                yield from block
            case "run", path:
                yield f"if [ -e {shlex.quote(path)} ]; then"
                yield from block
                yield f"else echo {shlex.quote(f'not run: {page}:{number}, there is no {path}')} >&3; fi"
            case "file", name:
                yield f"cat >{shlex.quote(name)} <<'END_OF_FILE'"
                yield from block
                yield "END_OF_FILE"


def fenced(lines, place):
    if not next(lines, (0, ""))[1].startswith("```"):
        sys.exit(f"{place}: a block must follow")
    for _, line in lines:
        if line == "```":
            return
        yield line
    sys.exit(f"{place}: the block does not end")


if __name__ == "__main__":
    print("\n".join(script(pathlib.Path(sys.argv[1]))))

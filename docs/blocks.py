#!/usr/bin/env python3
"""Prints the runnable blocks of pages as one script for bash.

    blocks.py PAGE...         the blocks behind a mark
    blocks.py --all PAGE...   all blocks of shell, as a reader would copy them, and no checks

    <!-- run -->              the block of shell that follows is run
    <!-- run: COMMAND -->     the block that follows, in whatever language, is what COMMAND reads (setup.sh)
    <!-- setup: COMMAND -->   is run before the block that follows: what the page takes for granted (setup.sh)
    <!-- check: COMMAND -->   must succeed, after the block before

Blocks without such a line before them are only read.
"""

import pathlib
import re
import shlex
import sys

MARK = re.compile(r"^<!-- (?:run|(run|setup|check): (.*)) -->$")
END = "THE END OF THE BLOCK"


def script(page, is_all):
    if not is_all:
        yield '. "$SETUP"'
    lines = enumerate(pathlib.Path(page).read_text().splitlines(), start=1)
    for number, line in lines:
        here = f"at={shlex.quote(f'{page}:{number}')}"
        mark = None if is_all else MARK.match(line)
        if mark and mark[1] == "run":
            yield from (here, f"{mark[2]} <<'{END}'")
            yield from fenced(lines, f"{page}:{number}", is_open=False)
            yield END
        elif mark and mark[1]:
            yield from (here, mark[2])
        elif mark or (is_all and line == "```sh"):
            yield here
            yield from fenced(lines, f"{page}:{number}", is_open=not mark)


def fenced(lines, place, is_open):
    if not is_open and not next(lines, (0, ""))[1].startswith("```"):
        sys.exit(f"{place}: a block must follow")
    for _, line in lines:
        if line == "```":
            return
        yield line
    sys.exit(f"{place}: the block does not end")


if __name__ == "__main__":
    is_all = sys.argv[1:2] == ["--all"]
    pages = sys.argv[2:] if is_all else sys.argv[1:]
    for page in pages:
        print("\n".join(script(page, is_all)))

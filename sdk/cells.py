#!/usr/bin/env python3
"""Prints which test shows what of each framework, and fails if one is missing: framework by cell, as a table in Markdown.

A cell is a test whose name begins with it: `test_agno_deny`, `test_agno_deny_...` in Python, and `'adk_deny: ...'` in Node.js. Each runs
twice, on the authority for tests and on a real operator.
"""

import re
import sys
from pathlib import Path

CELLS = ("registry", "allow", "deny", "jit_approve", "jit_deny", "restart_mid_wait", "backend_down", "hook_raises")
ROOT = Path(__file__).resolve().parent
SUITES = {
    "Python": (("langchain", "openai_agents", "crewai", "agno", "adk"), "python/tests/frameworks/*.py", r"^(?:async )?def test_(%s)\b"),
    "Node.js": (("langchain", "openai_agents", "adk"), "node/test/frameworks/*.mjs", r"^\s*(?:test|it)\('(%s): "),
}


def main() -> int:
    """0 if every cell has a test."""
    missing = 0
    print("| framework | " + " | ".join(CELLS) + " |\n" + "|---" * (len(CELLS) + 1) + "|")
    for language, (frameworks, files, pattern) in SUITES.items():
        source = "\n".join(path.read_text() for path in sorted(ROOT.glob(files)))
        for framework in frameworks:
            row = []
            for cell in CELLS:
                names = re.findall(pattern % rf"{framework}_{cell}\w*", source, re.MULTILINE)
                missing += not names
                row.append("<br>".join(f"`{name}`" for name in sorted(set(names))) or "**none**")
            print(f"| {framework}, {language} | " + " | ".join(row) + " |")
    if missing:
        print(f"{missing} cells have no test", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())

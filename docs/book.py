#!/usr/bin/env python3
"""What mdBook does not do for this book.

Pages link to files of the repository that are no pages, as they must to work where the repository is read. In the book those in Markdown
become chapters at the end, and the others are copied beside it, so that no link leads out of it.

    book.py                    a preprocessor of mdBook: [context, book] in, book out
    book.py supports RENDERER  whether it is one for this renderer
    book.py finish BOOK        copies what was linked, and the pages as Markdown, for those who read llms.txt
    book.py check BOOK         fails if a link within the book leads nowhere
    book.py pages              fails if a page is not in SUMMARY.md, or a page of it is not there
    book.py llms               prints llms.txt
"""

import html.parser
import json
import os
import pathlib
import re
import shutil
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# Code is matched too, to be passed over: nothing in it is a link.
LINK = re.compile(r"(?P<code>(`+)(?!`).*?(?<!`)\2(?!`))|\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^\s*(```|~~~)")
ENTRY = re.compile(r"^\s*-? *\[([^\]]+)\]\(([^)]*)\)\s*$")


def outside_code(text, change):
    """The text with `change` made to each line that is not in a block of code."""
    lines, in_code = [], False
    for line in text.splitlines(keepends=True):
        if FENCE.match(line):
            in_code = not in_code
        lines.append(line if in_code else change(line))
    return "".join(lines)


def resolve(target, folder):
    """The file or folder of the repository that a link in `folder` names, with its fragment; None if it is no such link."""
    if re.match(r"[a-z][a-z0-9+.-]*:", target) or target.startswith(("#", "/")):
        return None
    path, _, fragment = target.partition("#")
    file = pathlib.Path(os.path.normpath(folder / urllib.parse.unquote(path)))
    if file.is_dir() and (file / "README.md").is_file():
        file = file / "README.md"
    return file, fragment


def chapter_of(file):
    """The name of the chapter that a Markdown file of the repository becomes."""
    return "repository-" + str(file.relative_to(ROOT)).replace("/", "-").lower()


class Rewriting:
    """Rewrites the links of pages, and remembers what they lead to."""

    def __init__(self):
        self.chapters = {}  # file: rewritten text
        self.files = set()  # files and folders to be copied

    def page(self, text, folder):
        return outside_code(text, lambda line: LINK.sub(lambda match: self.link(match, folder), line))

    def link(self, match, folder):
        target = match["target"]
        found = target and resolve(target, folder)
        if not found:
            return match[0]
        file, fragment = found
        behind = f"#{fragment}" if fragment else ""
        if not file.is_relative_to(ROOT) or not file.exists():
            raise SystemExit(f"{folder}: {target} leads to nothing in the repository")
        if file.parent == DOCS:
            return f"]({file.name}{behind})"
        if file.suffix == ".md":
            self.chapter(file)
            return f"]({chapter_of(file)}{behind})"
        self.files.add(file)
        return f"](source/{file.relative_to(ROOT)}{'/index.html' if file.is_dir() else ''})"

    def chapter(self, file):
        if file not in self.chapters:
            self.chapters[file] = ""  # before its links are followed: they may come back
            self.chapters[file] = self.page(file.read_text(), file.parent)


def rewriting():
    """All pages, rewritten."""
    done = Rewriting()
    for page in sorted(DOCS.glob("*.md")):
        done.page(page.read_text(), DOCS)
    return done


def preprocess():
    _, book = json.load(sys.stdin)
    links = Rewriting()
    items = book["items"] if "items" in book else book["sections"]

    def visit(items):
        for item in items:
            chapter = item.get("Chapter") if isinstance(item, dict) else None
            if chapter is not None:
                chapter["content"] = links.page(chapter["content"], DOCS)
                visit(chapter["sub_items"])

    visit(items)
    items.append({"PartTitle": "From the repository"})
    for file, text in sorted(links.chapters.items()):
        items.append(
            {
                "Chapter": {
                    "name": str(file.relative_to(ROOT)),
                    "content": text,
                    "number": None,
                    "sub_items": [],
                    "path": chapter_of(file),
                    "source_path": None,
                    "parent_names": [],
                }
            }
        )
    json.dump(book, sys.stdout)


def finish(book):
    for file in rewriting().files:
        target = book / "source" / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            shutil.copytree(file, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
            entries = "".join(f'<li><a href="{entry.name}">{entry.name}</a></li>' for entry in sorted(target.iterdir()))
            (target / "index.html").write_text(f"<!DOCTYPE html><title>{file.name}</title><ul>{entries}</ul>\n")
        else:
            shutil.copyfile(file, target)
    for page in DOCS.glob("*.md"):
        if page.name != "SUMMARY.md":
            shutil.copyfile(page, book / page.name)


class Links(html.parser.HTMLParser):
    """The names in a page, and where its links lead."""

    def __init__(self, file):
        super().__init__()
        self.names, self.links = set(), []
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.names.add(attrs["id"])
        for name in ("href", "src"):
            if attrs.get(name):
                self.links.append(attrs[name])


def check(book):
    pages = {file: Links(file) for file in book.rglob("*.html")}
    wrong = []
    for file, page in pages.items():
        if file.name in ("404.html", "toc.html"):
            continue
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = pathlib.Path(os.path.normpath(file.parent / urllib.parse.unquote(parts.path))) if parts.path else file
            if target.is_dir():
                target = target / "index.html"
            name = urllib.parse.unquote(parts.fragment)
            if not target.exists():
                wrong.append(f"{file.relative_to(book)}: {link}: there is no such file")
            elif name and target in pages and name not in pages[target].names:
                wrong.append(f"{file.relative_to(book)}: {link}: there is no such heading")
    if wrong:
        raise SystemExit("\n".join(sorted(set(wrong))))
    print(f"{len(pages)} pages of the book, and every link in them leads somewhere")


def summary():
    """The parts of SUMMARY.md, each with its pages: title and file. Those without a file are yet to be written."""
    parts = [("", [])]
    for line in (DOCS / "SUMMARY.md").read_text().splitlines():
        if line.startswith("# ") and line != "# Summary":
            parts.append((line[2:], []))
        elif (entry := ENTRY.match(line)) and entry[2]:
            parts[-1][1].append((entry[1], entry[2]))
    return parts


def pages():
    listed = [file for _, entries in summary() for _, file in entries]
    there = {page.name for page in DOCS.glob("*.md")} - {"SUMMARY.md"}
    wrong = [f"docs/{page} is not in docs/SUMMARY.md" for page in sorted(there - set(listed))]
    wrong += [f"docs/SUMMARY.md names {page}, which is not there" for page in sorted(set(listed) - there)]
    wrong += [f"docs/SUMMARY.md names {page} twice" for page in sorted({page for page in listed if listed.count(page) > 1})]
    if wrong:
        raise SystemExit("\n".join(wrong))


def first_sentence(page):
    """What a page says of itself: the first sentence below its title."""
    for line in (DOCS / page).read_text().splitlines():
        line = line.strip()
        if line and not line.startswith(("#", "<!--", "- ", "|", "```")):
            sentence = LINK.sub(lambda match: match["code"] or "]", line).replace("[", "").replace("]", "")
            return re.split(r"(?<=[.!?]) (?=[A-Z])", sentence)[0]
    return ""


def llms():
    print("# Countersign\n")
    print(f"> {first_sentence('index.md')}\n")
    print("Every page is Markdown. Written from docs/SUMMARY.md by `make gen`.")
    for title, entries in summary():
        print(f"\n## {title or 'Start'}\n")
        for name, page in entries:
            print(f"- [{name}]({page}): {first_sentence(page)}")


def main(arguments):
    match arguments:
        case []:
            preprocess()
        case ["supports", renderer]:
            sys.exit(0 if renderer == "html" else 1)
        case ["finish", book]:
            finish(pathlib.Path(book).resolve())
        case ["check", book]:
            check(pathlib.Path(book).resolve())
        case ["pages"]:
            pages()
        case ["llms"]:
            llms()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

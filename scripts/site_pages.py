"""Pages of the site that have their source elsewhere; mkdocs calls the functions whose names begin with ``on_``.

The README, CHANGELOG, CONTRIBUTING and SECURITY are pages as they stand, and the command reference is read from the
command line itself.
"""

import re
from collections import defaultdict
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
COMMANDS = "commands.md"
LINK = re.compile(r"(?<=\]\()([^)#\s]+)?(#[^)\s]*)?(?=\))")
ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):(?=<code>)")  # of docstrings, as other tools mark them up


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages, and those that the navigation does not name to its end."""
    for source, target in PAGES.items():
        text = relinked((ROOT / source).read_text(encoding="utf-8"), source, target)
        files.append(File.generated(config, target, content=text))
    files.append(File.generated(config, COMMANDS, content=commands()))
    listed = set(re.findall(r"[\w/.-]+\.(?:md|ipynb)", str(config.nav)))
    rest = sorted(file.src_uri for file in files.documentation_pages() if file.src_uri not in listed)
    if rest and config.nav:
        config.nav.append({"More": rest})
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turns links that lead out of docs/ to the pages above."""
    if page.file.src_uri in {*PAGES.values(), COMMANDS}:
        return markdown
    return relinked(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def on_page_content(html: str, **_: Any) -> str:
    """Leaves the code of what docstrings refer to, without the word for its kind."""
    return ROLE.sub("", html)


def relinked(text: str, source: str, target: str) -> str:
    """The Markdown ``text`` of the file ``source`` of the repository as the page ``target`` of the site."""

    def link(found: re.Match[str]) -> str:
        address, anchor = found.group(1) or "", found.group(2) or ""
        if not address or ":" in address:
            return address + anchor
        path = normpath((PurePosixPath(source).parent / address).as_posix())
        page = path.removeprefix("docs/") if path.startswith("docs/") else PAGES.get(path)
        if page:
            return relpath(page, PurePosixPath(target).parent.as_posix()) + anchor
        return address + anchor

    return LINK.sub(link, text)


def commands() -> str:
    """Every command with its arguments and options, grouped as its ``--help`` groups them."""
    from typer import Context
    from typer.main import get_command

    from refinebox.commands.app import app

    whole: Any = get_command(app)
    parts = ["# Commands\n\nWritten by the command line itself; `refinebox COMMAND --help` says the same.\n"]
    for name, command in whole.commands.items():
        context = Context(command, info_name=f"refinebox {name}")
        usage = " ".join(["refinebox", name, *command.collect_usage_pieces(context)])
        parts.append(f"## refinebox {name}\n\n{command.help}\n\n```text\n{usage}\n```\n")
        groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for parameter in command.get_params(context):
            if (record := parameter.get_help_record(context)) is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                groups[getattr(parameter, "rich_help_panel", None) or kind].append(record)
        for group, records in groups.items():
            parts.append(f"| {group} | |\n|---|---|\n" + "".join(row(*record) for record in records))
        if command.epilog:
            example = command.epilog.removeprefix("Example: ")
            parts.append(f"```sh\n{example}\n```\n")
    return "\n".join(parts)


def row(name: str, text: str) -> str:
    """One option as a row of a table."""
    shown = re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")
    return f"| `{name.replace('|', '∣')}` | {shown} |\n"

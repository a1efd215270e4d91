"""Pages that have their source elsewhere, and links between them."""

from types import ModuleType

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed; pip install -e '.[docs]'")


@pytest.mark.parametrize(
    ("text", "source", "target", "expected"),
    [
        ("[a](docs/data.md#ids)", "README.md", "index.md", "[a](data.md#ids)"),
        ("![b](docs/b.png) [s](SECURITY.md)", "README.md", "index.md", "![b](b.png) [s](security.md)"),
        ("[r](../README.md)", "docs/data.md", "data.md", "[r](index.md)"),
        ("[s](../../SECURITY.md)", "docs/design/x.md", "design/x.md", "[s](../security.md)"),
        ("[d](../data.md)", "docs/design/x.md", "design/x.md", "[d](../data.md)"),
        ("[h](https://a.b/c) [i](#here)", "README.md", "index.md", "[h](https://a.b/c) [i](#here)"),
        ("[n](nowhere.md)", "README.md", "index.md", "[n](nowhere.md)"),
    ],
)
def test_links_lead_to_pages(script: ModuleType, text: str, source: str, target: str, expected: str) -> None:
    assert script.relinked(text, source, target) == expected


def test_every_command_and_option_is_on_the_page(script: ModuleType) -> None:
    from typer.main import get_command

    from refinebox.commands.app import app

    text = script.commands()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"## refinebox {name}\n\n{command.help}" in text
        for parameter in command.params:
            assert all(option in text for option in parameter.opts if option.startswith("--"))
    assert "| Recipe | |" in text
    assert "refinebox predict [OPTIONS]" in text


def test_roles_of_docstrings_are_left_out(script: ModuleType) -> None:
    assert script.on_page_content("<p>see :meth:<code>a</code> and <code>b</code></p>") == (
        "<p>see <code>a</code> and <code>b</code></p>"
    )

"""Tables on the terminal."""

from rich.console import Console
from rich.table import Table


def show(table: Table, width: int = 120) -> None:
    """Prints a table as wide as the terminal is; elsewhere ``width`` characters, for a table that is cut is no use."""
    console = Console()
    console.print(table) if console.is_terminal else Console(width=width).print(table)

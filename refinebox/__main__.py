"""``python -m refinebox``."""

from refinebox.commands.app import app

if __name__ == "__main__":
    app()

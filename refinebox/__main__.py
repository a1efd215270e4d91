"""``python -m refinebox``."""

from refinebox.cli import app

if __name__ == "__main__":
    app()

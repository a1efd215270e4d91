"""Stand-in by which a checkout imports its top-level folder as ``refinebox.adapters``; wheels hold that folder."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[1] / "adapters")]

"""Who may do what in a drop directory."""

from __future__ import annotations

from pathlib import Path


def prepare_data_in(path: Path) -> None:
    """Give the new drop directory ``path`` the owner and mode that uploads need.

    Does nothing on a machine without the upload group.
    """

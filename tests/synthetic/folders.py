"""Helpers for tests of drawn folders."""

from pathlib import Path


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Return relative path -> content of every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

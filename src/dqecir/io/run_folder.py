"""Store the settings of a run in its folder, and refuse the folder to a run with other settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dqecir.errors import DataError
from dqecir.io.files import write_json
from dqecir.settings import Strict, parse_settings


def claim(
    folder: Path,
    file: str,
    settings: Strict,
    kind: str,
    *,
    joining: str | None = None,
    writes: bool = True,
) -> None:
    """Write the settings of a run to ``folder/file``, or compare them with those that are already there.

    ``kind`` names the run in errors. Settings that an earlier version wrote are accepted. Between runs,
    entries under the key ``joining`` may be added or removed, but not changed. ``writes`` is False in all
    processes of a run but one. Raises :class:`DataError` that names each differing setting, or if the file
    cannot be read.
    """
    path = folder / file
    wanted = settings.model_dump(mode="json")
    held = _held(path, type(settings), kind)
    if held is not None:
        if joining is not None:
            before, now = held[joining], wanted[joining]
            held[joining] = {**now, **before}
            wanted[joining] = {**before, **now}
        changed = list(_differences(held, wanted))
        if changed:
            raise DataError(
                f"{folder} holds a {kind} with another {', '.join(changed)}: name another folder, or "
                "remove this one"
            )
    if writes and (held is None or joining is not None):
        write_json(path, wanted)


def _held(path: Path, settings: type[Strict], kind: str) -> dict[str, Any] | None:
    """Return the settings (of the class ``settings``) that are stored in ``path``; None if there are none.

    Raises :class:`DataError`, which names the ``kind`` of run, if they cannot be read.
    """
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise DataError(
            f"{path} is damaged: remove {path.parent}, or name another folder for the {kind}"
        ) from None
    return parse_settings(held, settings, str(path)).model_dump(mode="json")


_SHORT = 100
"""Values are shown in an error if both together have at most this many characters; checksums have more."""


def _differences(held: Any, wanted: Any, name: str = "") -> Iterator[str]:
    """Yield the dotted name of each setting that differs, with both values if they are short."""
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys([*wanted, *held]):
            yield from _differences(held.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    elif held != wanted:
        is_list = isinstance(held, list | dict) or isinstance(wanted, list | dict)
        both = f"{held}, not {wanted}"
        yield name if is_list or len(both) > _SHORT else f"{name} ({both})"

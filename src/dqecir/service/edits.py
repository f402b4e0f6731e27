"""Edit pictures one at a time in a separate thread, because an edit may take minutes."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from dqecir.errors import EditError
from dqecir.search.editing import Editor
from dqecir.service.batching import Gate
from dqecir.service.problems import Problem, log
from dqecir.service.uploads import as_jpeg

WAITING = 4
"""Most edits that may wait or run at a time."""


class Edits:
    """The editor of a service; without a checkpoint every edit is refused."""

    def __init__(self, checkpoint: Path | None, seconds: float) -> None:
        """Take the folder of a diffusion pipeline (None: no edits), and the seconds that an edit may take.

        Raises :class:`EditError` if the pipeline cannot be used.
        """
        self._editor, self._seconds = Editor(checkpoint), seconds
        self.missing = self._editor.missing()
        if checkpoint is not None and self.missing is not None:
            raise EditError(self.missing)
        self.gate = Gate(WAITING, "edits")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="editor")

    def close(self) -> None:
        """Finish the current edit, cancel those that wait, and end the thread."""
        self._thread.shutdown(cancel_futures=True)

    async def made(self, picture: Image.Image, text: str) -> bytes:
        """Edit a picture as a text says, and return it as JPEG.

        Raises a :class:`Problem`: status 504 after too many seconds, 503 if the edit fails.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._seconds):
                edited = await loop.run_in_executor(self._thread, self._editor.edit, picture, text)
        except TimeoutError:
            raise Problem(504, f"the edit took longer than {self._seconds:g} seconds: try again") from None
        except EditError as error:
            # The error's message is about this machine, so do not send it.
            log.error("edit failed", extra={"fields": {"reason": str(error)}})
            raise Problem(503, "the picture could not be edited: the service's log has the reason") from None
        return as_jpeg(edited)

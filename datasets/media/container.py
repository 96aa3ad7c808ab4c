"""Opening of media containers, with errors that name the file and a remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from crossfold.platform.core.errors import DataError, UserError


@contextmanager
def open_container(path: Path, trouble: str, remedy: str) -> Iterator[Any]:
    """The container of a media file; an error of FFmpeg inside becomes a `DataError` with this trouble and remedy."""
    av = import_av()
    try:
        with av.open(str(path)) as container:
            yield container
    except av.error.FFmpegError as error:
        raise DataError(f"{path}: {trouble} ({reason_of(error)})", remedy) from None


def reason_of(error: BaseException) -> str:
    """The system's words for an error, without the path that the message already names."""
    return str(getattr(error, "strerror", None) or str(error).partition(":")[0].partition(" '")[0])  # FFmpeg, or Pillow


def import_av() -> ModuleType:
    """PyAV, which only reading media needs."""
    try:
        import av
    except ImportError:
        raise UserError("reading video and sound needs PyAV", "pip install 'crossfold[media]'") from None
    return av

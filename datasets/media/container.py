"""Opening and decoding of media containers, with errors that name the file and a remedy."""

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
    with ffmpeg_errors(path, trouble, remedy), av.open(str(path)) as container:
        yield container


@contextmanager
def ffmpeg_errors(path: Path, trouble: str, remedy: str) -> Iterator[None]:
    """An error of FFmpeg inside becomes a `DataError` with this trouble and remedy."""
    try:
        yield
    except import_av().error.FFmpegError as error:
        raise DataError(f"{path}: {trouble} ({reason_of(error)})", remedy) from None


def pictures_of(container: Any) -> Any | None:
    """The first stream of pictures; the cover of a song and the thumbnail of a video are none."""
    attached = import_av().stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & attached), None)


def sound_of(container: Any) -> Any | None:
    """The first stream of sound."""
    return next(iter(container.streams.audio), None)


def decoded(container: Any, stream: Any, *, keyless: bool = False) -> Iterator[Any]:
    """Frames of a stream in order. What cannot be decoded is left out; that nothing can raises FFmpeg's error.

    keyless: nothing is decoded before the first key frame, where decoders would make up what is not there.
    """
    failed: BaseException | None = None
    some = False
    for packet in container.demux(stream):
        keyless &= not packet.is_keyframe
        if keyless and packet.size:
            continue
        try:
            frames = packet.decode()
        except import_av().error.FFmpegError as error:
            failed = error
            continue
        some |= bool(frames)
        yield from frames
    if failed is not None and not some:
        raise failed


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

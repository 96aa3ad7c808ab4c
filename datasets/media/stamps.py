"""When things happen in a media file: the one place where the time stamps of a container become seconds.

Time 0 of a file is its first picture, or its first sample of sound where it has no pictures. Pictures, sound, words and
labels are all counted from there. What a header says of rates, counts and lengths is a hint and never more: the packets
say when each picture is shown and how long the sound lasts. Nothing is decoded here.

P pictures, N packets of sound.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossfold.datasets.media.avi import check_chunks
from crossfold.datasets.media.container import open_container, pictures_of, sound_of
from crossfold.platform.core.errors import DataError

_SAME_RATE = 0.02  # a nominal rate is believed where it is that close to the mean rate of the stamps
_APART_S = 3600.0  # a longer gap is no gap but another clock, and would be filled with silence
_BACK_S = 1.0  # stamps that fall by more are those of another recording
_OPEN_LENGTH = 0x7FFF0000  # what is written to a pipe gives itself this many bytes or more
_DAMAGED = "the file is damaged or was not copied whole; fetch it again"
_REWRITE = "write it again with one clock, by `ffmpeg -i FILE NEW.mp4`"


@dataclass(frozen=True)
class Stamps:
    """What the packets of a file say."""

    origin: float
    """Time 0, in seconds of the container's own clock."""
    clock: np.ndarray
    """float64 [P]: when each picture is shown, in seconds of the container's own clock."""
    fps: float
    """Pictures a second; 0 where there are none."""
    counted: bool
    """Whether stamps are those of decoding, as in avi, so that pictures are known by their order."""
    keyless: int
    """Pictures before the first key frame; without one they cannot be decoded."""
    sound: tuple[float, float] | None
    """Begin and end of the sound, in seconds after time 0; None without a sound track."""
    missing: float = 0.0
    """Seconds by which a header of Matroska says that the file goes on after its last packet."""

    @property
    def times(self) -> np.ndarray:
        """float64 [P]: when each picture is shown, in seconds after time 0."""
        return self.clock - self.origin


def read_stamps(path: Path) -> Stamps:
    """Reads the packets of a file from end to end.

    Raises `DataError` for a file that cannot be opened, is cut short, or whose stamps make no sense.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty", "copy or record it again")
    check_wav_length(path)
    shown: list[tuple[Any, ...]] = []  # stamp, order, length, and whether it is a key frame
    heard: list[tuple[Any, ...]] = []  # stamp, order, length, and how many pictures stand before it
    stored, hidden_key, first, last = 0, False, None, None
    with open_container(path, "cannot be read as video or sound", _DAMAGED) as container:
        pictures, track = pictures_of(container), sound_of(container)
        chosen = [stream for stream in (pictures, track) if stream is not None]
        if any(stream.codec_context is None for stream in chosen):
            raise DataError(f"{path}: cannot be read as video or sound (its codec is unknown)", _DAMAGED)
        number = pictures.index if pictures is not None else -1
        referred = pictures is not None and pictures.codec_context.name == "vp8"  # has pictures that are never shown
        for packet in container.demux(chosen) if chosen else ():
            if not packet.size:  # the end, or a chunk of avi in which nothing new is shown
                continue
            picture = packet.stream_index == number
            stored += picture
            if packet.is_discard:  # outside an edit list
                hidden_key |= picture and packet.is_keyframe
            elif not picture:
                heard.append((packet.pts, packet.dts, packet.duration, len(shown)))
                first, last = first or packet, packet
            elif not referred or memoryview(packet)[0] & 0x10:
                shown.append((packet.pts, packet.dts, packet.duration, packet.is_keyframe))
        if pictures is not None and stored < pictures.frames and _ends_early(path):
            raise DataError(f"{path}: cut short, {stored} of {pictures.frames} frames are there", _DAMAGED)
        nominal = float((pictures.average_rate or pictures.guessed_rate or 0) if pictures is not None else 0)
        tick = float(pictures.time_base) if pictures is not None else 0.0
        avi = container.format.name == "avi"
        late = pictures is not None and bool(pictures.codec_context.has_b_frames)
        # FFmpeg puts packets in order of time; other programs write sound in blocks, or ahead of its pictures.
        lavf = any(value.startswith("Lavf") for value in container.metadata.values())
        stated = (container.duration or 0) / 1e6 if "matroska" in container.format.name else 0.0  # others guess it
        sound, packets = None, np.zeros((0, 4))
        if track is not None and heard:
            skipped = [samples / (track.rate or 1) for samples in (_skipped(first)[0], _skipped(last)[1])]
            packets = _seconds(path, heard, float(track.time_base))
            sound = _sound_times(packets, *skipped)
    table = _seconds(path, shown, tick)
    if avi:
        check_chunks(path, table[:, 1], packets[:, (1, 3)], tick, later=late, in_order=lavf)
        table[:, 0] = np.nan  # chunks have no time of showing; what FFmpeg makes up in its place is not in order
    counted = bool(np.isnan(table[:, 0]).any())
    clock, fps = _picture_times(path, table, nominal, avi=avi) if shown else (np.zeros(0), 0.0)
    keys = np.flatnonzero(table[:, 3])
    keyless = 0
    if len(keys) and not hidden_key:
        keyless = int(keys[0]) if counted else int((clock < table[keys[0], 0]).sum())
    ends = [float(clock[-1])] if shown else []
    missing = max(0.0, stated - max([*ends, *(sound or ())], default=0.0))
    origin = float(clock[0]) if shown else sound[0] if sound is not None else 0.0
    if sound is not None:
        sound = (sound[0] - origin, sound[1] - origin)
        if abs(sound[0]) > _APART_S:
            raise DataError(f"{path}: its sound and its pictures begin more than an hour apart", _REWRITE)
    return Stamps(origin, clock, fps, counted, keyless, sound, missing)


def _seconds(path: Path, packets: list[tuple[Any, ...]], tick: float) -> np.ndarray:
    """Packets as float64 [., 4]: stamp, order of decoding and length in seconds, and one column that stays as it is.

    What a packet does not say is not a number.
    """
    table = np.array(packets, np.float64).reshape(len(packets), 4)
    table[:, :3] *= tick
    order = np.where(np.isnan(table[:, 1]), table[:, 0], table[:, 1])
    known = order[~np.isnan(order)]
    if (back := np.flatnonzero(np.diff(known) < -_BACK_S)).size:
        problem = f"its time stamps jump back by {known[back[0]] - known[back[0] + 1]:.1f} s, as in files put together"
        raise DataError(f"{path}: {problem}", _REWRITE)
    if (np.diff(known) > _APART_S).any():
        raise DataError(f"{path}: its time stamps leave out more than an hour", _REWRITE)
    return table


def _picture_times(path: Path, packets: np.ndarray, nominal: float, *, avi: bool) -> tuple[np.ndarray, float]:
    """When each picture is shown, float64 [P] in seconds of the container's clock, and how many a second."""
    # Packets come in order of decoding, which is not that of showing where pictures refer to later ones.
    for stamps in (packets[:, 0], packets[:, 1]):
        if not np.isnan(stamps).any():
            times = np.sort(stamps)
            break
    else:  # the rate is all there is
        times = np.arange(len(packets)) / nominal if nominal > 0 else np.zeros(len(packets))
    if avi and len(times) > 2 and times[1] - times[0] > 1.5 * (step := float(np.median(np.diff(times)))):
        times[0] = times[1] - step  # writers put the first picture at 0, and what delays the video after it
    span = float(times[-1] - times[0])
    mean = (len(times) - 1) / span if span > 0 else 0.0
    if len(times) == 1:
        mean = 1 / packets[0, 2] if packets[0, 2] > 0 else nominal
    fps = nominal if abs(nominal - mean) <= _SAME_RATE * mean else mean
    if fps <= 0:
        raise DataError(f"{path}: {len(times)} pictures, and nothing says when they are shown", _REWRITE)
    return times, fps


def _sound_times(packets: np.ndarray, before: float, after: float) -> tuple[float, float]:
    """Begin and end of the sound in seconds of the container's clock, without what decoders leave out at its ends."""
    stamps, lengths = np.where(np.isnan(packets[:, 0]), packets[:, 1], packets[:, 0]), np.nan_to_num(packets[:, 2])
    if np.isnan(stamps).any():
        stamps = np.cumsum(lengths) - lengths
    gaps = np.append(np.diff(stamps), np.median(np.diff(stamps)) if len(stamps) > 1 else 0.0)
    lengths = np.where(lengths > 0, lengths, gaps)
    # Some containers count what the decoder leaves out at the end in the length of the last packet, some do not.
    lengths[-1] = min(lengths[-1], lengths.max() - after)
    return float(stamps[0] + before), float((stamps + lengths).max())


def _skipped(packet: Any) -> tuple[int, int]:
    """Samples that a decoder leaves out at the begin and at the end of a packet: delay and filling of an encoder."""
    if not packet.has_sidedata("skip_samples"):
        return 0, 0
    begin, end = struct.unpack_from("<II", bytes(packet.get_sidedata("skip_samples")))
    return begin, end


def _ends_early(path: Path) -> bool:
    """Whether the outermost parts of an mp4, mov or avi file reach beyond its end."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as file:
        riff = file.read(4) == b"RIFF"
        while place + 8 <= size:
            file.seek(place)
            header = file.read(16).ljust(16, b"\0")
            length = 8 + struct.unpack_from("<I", header, 4)[0] if riff else struct.unpack_from(">I", header)[0]
            if not riff and length == 1:
                length = struct.unpack_from(">Q", header, 8)[0]
            # Left open, as by what wrote to a pipe or was stopped.
            if length < 8 + riff or (riff and length >= _OPEN_LENGTH):
                return False
            place += length + (length % 2 if riff else 0)
    return place > size + riff


def check_wav_length(path: Path) -> None:
    """Raises `DataError` for a wav file that is shorter than its own header says; decoders just stop early."""
    if path.suffix.lower() != ".wav":
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(12)[8:] != b"WAVE":
            raise DataError(f"{path}: not a wav file", "extract the sound of the video again")
        while len(header := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", header)
            if name == b"data":
                # What was written to a pipe cannot know its length: 0, about 2^31 or about 2^32 stand for it.
                if length < _OPEN_LENGTH and file.tell() + length > size:
                    raise DataError(
                        f"{path}: cut short, {size - file.tell()} of {length} bytes of sound are there",
                        "the file was not copied whole; fetch or extract it again",
                    )
                return
            file.seek(length + length % 2, 1)  # chunks of RIFF are padded to an even length

"""What the order of the packets of an avi says of its sound, on chunks written by hand."""

import re
from pathlib import Path

import numpy as np
import pytest

from crossfold.datasets.media.avi import check_chunks
from crossfold.platform.core.errors import DataError

TICK = 1 / 25
PICTURES = np.arange(50) * TICK
CLIP = Path("a.avi")


def sound(late=0.0, packet=0.02, seconds=2.0, ahead=0.0):
    """Packets of sound from 0 on, and the pictures before each where the sound is `late`, or written `ahead`."""
    times = np.arange(0, seconds, packet)
    return np.stack([times, np.searchsorted(PICTURES, times + late - ahead, side="right")], axis=1)


def check(pictures=PICTURES, heard=None, *, later=False, in_order=True, tick=TICK):
    check_chunks(CLIP, pictures, sound() if heard is None else heard, tick, later=later, in_order=in_order)


@pytest.mark.parametrize("late", [-0.5, -0.1, 0.1, 0.4, 1.3])
def test_sound_that_stands_in_the_wrong_place_is_refused(late):
    with pytest.raises(DataError) as error:
        check(heard=sound(late))
    assert f"s {'later' if late > 0 else 'earlier'} than an avi can say" in error.value.problem
    said = re.search(r"-itsoffset (\S+) -i FILE", error.value.remedy)
    assert float(said[1]) == pytest.approx(late, abs=TICK / 2)


@pytest.mark.parametrize("late", [-0.01, 0.0, 0.01, 0.02])
def test_half_a_frame_is_no_reason(late):
    check(heard=sound(late))


def test_only_order_of_time_counts():
    """Other programs write sound half a second ahead, or in blocks after the pictures of a second."""
    check(heard=sound(ahead=-0.5), in_order=False)
    blocks = np.array([[0.0, 25], [1.0, 50]])
    check(heard=blocks, in_order=False)
    mixed = sound()
    mixed[::2, 1] = 50
    check(heard=mixed)


@pytest.mark.parametrize("delay", [1, 2])
def test_b_frames_put_the_first_picture_off(delay):
    check(heard=sound(delay * TICK), later=True)
    with pytest.raises(DataError, match="its sound"):
        check(heard=sound((delay + 5) * TICK), later=True)


def test_dropped_pictures_are_no_reason_and_where_nothing_is_heard_no_sound_is_misplaced():
    check(np.delete(PICTURES, [7, 8, 30]), np.zeros((0, 2)))
    dropped = np.delete(PICTURES, [7, 8, 30])
    times = np.arange(0, 2, 0.02)
    check(dropped, np.stack([times, np.searchsorted(dropped, times, side="right")], axis=1))
    check(np.delete(PICTURES, [1, 2, 3, 4]), np.zeros((0, 2)))
    with pytest.raises(DataError, match=r"no picture for 0\.20 s after its first"):
        check(np.delete(PICTURES, [1, 2, 3, 4]))

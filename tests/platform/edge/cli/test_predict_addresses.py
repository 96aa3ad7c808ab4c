"""What `crossfold predict` says to an address or a folder where it needs a file."""

import pytest


@pytest.mark.parametrize("follow", [(), ("--follow",)], ids=["whole", "followed"])
@pytest.mark.parametrize("address", ["http://127.0.0.1:9/film.ts", "rtsp://camera/1"])
def test_an_address_is_refused_with_the_pipe_that_follows_it(crossfold, address, follow):
    code, _, err = crossfold("predict", "concat", address, *follow)
    said = " ".join(err.split())
    assert code == 2
    assert f"error: {address} is an address" in said
    assert f"ffmpeg -i {address} -f mpegts - | crossfold predict MODEL - --follow" in said


def test_a_folder_cannot_be_followed(crossfold, tmp_path):
    code, _, err = crossfold("predict", "concat", tmp_path, "--follow")
    assert code == 2
    assert "the file that is being written" in " ".join(err.split())

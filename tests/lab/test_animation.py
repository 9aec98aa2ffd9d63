"""The animated picture of a search shows it as it stood after one epoch and another."""

import io

import pytest
from PIL import Image
from tiny_runs import do_search

from sswp_lib.config import InputError
from sswp_lib.lab import animation
from sswp_lib.runs import following, runs


@pytest.fixture
def found(runs_folder):
    return runs.stand(do_search())


def test_a_run_stands_as_it_stood(found):
    """After each of three epochs of a search whose two cells are pruned after the first and the second."""
    then = [animation.earlier(found, epochs) for epochs in (1, 2, 3)]
    assert [len(s.history) for s in then] == [1, 2, 3] and [sorted(s.alphas) for s in then] == [[0], [0, 1], [0, 1, 2]]
    assert [s.fixed for s in then] == [[0], [0, 1], [0, 1]] and [s.state for s in then] == ["running"] * 2 + ["done"]
    assert then[0].history[0] == found.record.history[0]


def test_every_frame_is_of_another_epoch_and_the_last_stays(found):
    pictures = animation.frames(found, 0)
    read = Image.open(io.BytesIO(animation.gif(pictures)))
    assert read.n_frames == len(pictures) == 3 and len({picture.tobytes() for picture in pictures}) == 3
    durations = []
    for i in range(3):
        read.seek(i)
        durations.append(read.info["duration"])
    assert durations == [animation.MILLISECONDS] * 2 + [animation.LAST] and read.info["loop"] == 0
    assert len(animation.frames(found, 1, count=2)) == 2


def test_a_search_of_another_machine_is_refused(found):
    (found.folder / following.ALPHA).unlink()
    with pytest.raises(InputError, match=r"is done.*expected a search that was done in this store"):
        animation.frames(runs.stand(found.name), 0)

"""Files are never half, and what is damaged, foreign or dangerous is refused by name."""

import errno
import io
import json
import os
import random

import pytest
import torch
from safetensors.torch import save as save_safetensors
from tiny_runs import Dangerous

from sswp_lib.config import InputError, RunError
from sswp_lib.runs import files

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.int64)}


def saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def one_line(message: str) -> bool:
    return "\n" not in message and len(message) > 0


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullFile(io.BytesIO):
    """Takes some bytes, then the disk is full."""

    def write(self, content):
        super().write(content[:3])
        full()


def test_written_and_read_back(tmp_path):
    files.write(tmp_path / "new" / "x.bin", b"content")
    assert (tmp_path / "new" / "x.bin").read_bytes() == b"content"
    files.write_json(tmp_path / "x.json", {"a": [1, 0.1]})
    assert files.read_json(tmp_path / "x.json") == {"a": [1, 0.1]}
    files.append(tmp_path / "x.jsonl", "1")
    files.append(tmp_path / "x.jsonl", "2")
    assert (tmp_path / "x.jsonl").read_text() == "1\n2\n"


@pytest.mark.parametrize("where", ["fsync", "replace", "open", "write"])
def test_full_disk_leaves_the_earlier_file_and_no_part(tmp_path, monkeypatch, where):
    path = tmp_path / "record.json"
    files.write(path, b"earlier")
    if where in ("open", "write"):
        monkeypatch.setattr(files, "open", full if where == "open" else lambda *a: FullFile(), raising=False)
    else:
        monkeypatch.setattr(files.os, where, full)
    with pytest.raises(RunError) as caught:
        files.write(path, b"later")
    assert (
        one_line(str(caught.value)) and repr(str(path)) in str(caught.value) and "free some space" in str(caught.value)
    )
    assert os.listdir(tmp_path) == ["record.json"]
    assert path.read_bytes() == b"earlier"


def test_interruption_leaves_no_part(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "x", b"content")
    assert os.listdir(tmp_path) == []


def test_full_disk_on_append_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "open", full, raising=False)
    with pytest.raises(RunError) as caught:
        files.append(tmp_path / "x.jsonl", "line")
    assert one_line(str(caught.value))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="check the folder"):
        files.write(tmp_path / "file" / "x", b"content")


def test_parts_of_killed_processes_are_cleared(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".00001-0000001-abc.pt.77.part").write_bytes(b"half")
    (tmp_path / "record.json").write_text("{}")
    files.clear_partial(tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["record.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00"])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"record.json") as caught:
        files.read_json(path)
    assert one_line(str(caught.value))


def test_weights_round_trip_and_equal_bytes(tmp_path):
    assert files.weights_bytes(WEIGHTS) == files.weights_bytes({"b": WEIGHTS["b"].clone(), "a": WEIGHTS["a"].clone()})
    for name, content in (("w.safetensors", files.weights_bytes(WEIGHTS)), ("w.pt", saved(WEIGHTS))):
        (tmp_path / name).write_bytes(content)
        read = files.read_weights(tmp_path / name, files.checksum(content))
        assert read.keys() == WEIGHTS.keys() and all(torch.equal(read[k], WEIGHTS[k]) for k in WEIGHTS)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_truncated_weights_are_refused(tmp_path, name):
    content = save_safetensors(WEIGHTS) if name.endswith("safetensors") else saved(WEIGHTS)
    for length in (0, 5, len(content) // 2, len(content) - 3):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(InputError, match=name) as caught:
            files.read_weights(tmp_path / name)
        assert one_line(str(caught.value))


def test_garbage_is_refused_whatever_it_is(tmp_path, recwarn):
    rng, whole = random.Random(0), saved(WEIGHTS)
    for _ in range(300):
        content = bytearray(whole if rng.random() < 0.5 else rng.randbytes(rng.randrange(60)))
        for _ in range(rng.randint(1, 8)):
            if content:
                content[rng.randrange(len(content))] = rng.randrange(256)
        (tmp_path / "w.pt").write_bytes(content)
        try:
            files.read_weights(
                tmp_path / "w.pt"
            )  # a byte of a tensor may change unnoticed: that is what checksums are for
        except InputError as error:
            assert one_line(str(error))
    assert not recwarn.list


def test_weights_with_another_checksum_are_refused(tmp_path):
    content = files.weights_bytes(WEIGHTS)
    path = tmp_path / "w.safetensors"
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    files.read_weights(path)  # whole as far as the format can tell
    with pytest.raises(InputError, match="checksum"):
        files.read_weights(path, files.checksum(content))


def test_weights_that_would_run_code_are_refused(tmp_path):
    trap, path = tmp_path / "created", tmp_path / "w.pt"
    path.write_bytes(saved({"a": Dangerous(trap)}))
    with pytest.raises(InputError, match=r"refused .*w.pt.*could run code"):
        files.read_weights(path)
    assert not trap.exists()


@pytest.mark.parametrize("content", [[torch.ones(1)], {"a": 1}, torch.ones(2)])
def test_weights_that_are_no_state_dict_are_refused(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(saved(content))
    with pytest.raises(InputError, match="expected a dictionary of tensors"):
        files.read_weights(tmp_path / "w.pt")


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent.safetensors"):
        files.read_weights(tmp_path / "absent.safetensors")


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints of run "r": the older holds 1, the newer 2."""
    files.write_checkpoint(tmp_path / "c", "r", 0, 9, {"value": torch.tensor(1.0)})
    files.write_checkpoint(tmp_path / "c", "r", 1, 3, {"value": torch.tensor(2.0)})
    return tmp_path / "c"


def replace_newest(folder, content: bytes, named: bytes | None = None):
    """Give the newest checkpoint other content; with `named`, under a name that fits that content."""
    newest = files.checkpoints(folder)[0]
    if named is None:
        newest.write_bytes(content)
        return newest
    newest.unlink()
    path = folder / f"00001-0000003-{files.checksum(named)[:16]}.pt"
    path.write_bytes(content)
    return path


def test_newest_checkpoint_is_read_and_two_are_kept(folder):
    heard = []
    assert files.read_checkpoint(folder, "r", heard.append)["value"] == 2
    files.write_checkpoint(folder, "r", 1, 4, {"value": torch.tensor(3.0)})
    assert files.read_checkpoint(folder, "r", heard.append)["value"] == 3
    assert len(files.checkpoints(folder)) == 2 and not heard


def test_no_checkpoint_is_none(tmp_path):
    assert files.read_checkpoint(tmp_path / "none", "r", None) is None


def truncated(folder):
    return replace_newest(folder, files.checkpoints(folder)[0].read_bytes()[:-20])


def flipped(folder):
    content = bytearray(files.checkpoints(folder)[0].read_bytes())
    content[len(content) // 2] ^= 1
    return replace_newest(folder, bytes(content))


def emptied(folder):
    return replace_newest(folder, b"")


def foreign(folder):
    content = saved({"run": "another", "state": {"value": torch.tensor(5.0)}})
    return replace_newest(folder, content, content)


def not_a_checkpoint(folder):
    content = saved(torch.zeros(2))
    return replace_newest(folder, content, content)


def dangerous(folder):
    content = saved({"run": "r", "state": Dangerous(folder.parent / "created")})
    return replace_newest(folder, content, content)


@pytest.mark.parametrize("damage", [truncated, flipped, emptied, foreign, not_a_checkpoint, dangerous])
def test_damaged_checkpoint_falls_back_to_the_older(folder, damage):
    path, heard = damage(folder), []
    assert files.read_checkpoint(folder, "r", heard.append)["value"] == 1
    assert len(heard) == 1 and str(path) in heard[0] and one_line(heard[0])
    assert not (folder.parent / "created").exists()


def test_no_whole_checkpoint_ends_the_run(folder):
    for path in files.checkpoints(folder):
        path.write_bytes(path.read_bytes()[:100])
    heard = []
    with pytest.raises(RunError, match="none of the 2 checkpoints") as caught:
        files.read_checkpoint(folder, "r", heard.append)
    assert one_line(str(caught.value)) and len(heard) == 2


def test_full_disk_keeps_the_last_checkpoint(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        with pytest.raises(RunError):
            files.write_checkpoint(folder, "r", 1, 4, {"value": torch.tensor(3.0)})
    assert files.read_checkpoint(folder, "r", None)["value"] == 2
    assert len(list(folder.iterdir())) == 2


def test_reason_is_one_short_line():
    assert files.reason(ValueError("first\nsecond")) == "first"
    assert files.reason(ValueError()) == "ValueError"
    assert len(files.reason(ValueError("x" * 999))) == 200
    assert json.loads(json.dumps(files.reason(KeyError("k")))) == "'k'"

"""What the command refuses of genotypes, weights, records, checkpoints and disks, and how a stopped run goes on."""

import errno
import io
import os
import shutil

import pytest
import torch
from tiny_runs import TINY_RUN, Dangerous, genotype_file, stop_at

from sswp_lib.learn.search import Search
from sswp_lib.runs import carrying_out, files, records, runs


def test_unknown_operation_in_a_genotype(refused, tmp_path):
    def change(cells):
        cells[1][3][0] = "sep_conv_3x4"

    line = refused("train", genotype_file(tmp_path, change), *TINY_RUN)
    assert (
        "genotype.json" in line
        and "cell 1, pair 3: unknown operation 'sep_conv_3x4'; did you mean 'sep_conv_3x3'?" in line
    )


@pytest.mark.parametrize("source", [5, -1])
def test_input_index_out_of_range_in_a_genotype(refused, tmp_path, source):
    def change(cells):
        cells[0][2][1] = source

    line = refused("train", genotype_file(tmp_path, change), *TINY_RUN)
    assert f"cell 0, pair 2: input {source} is out of range; node 3 takes inputs 0 to 2" in line


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00\x01", b'{"cells": []}'])
def test_damaged_genotype_file_is_named(refused, tmp_path, content):
    (tmp_path / "g.json").write_bytes(content)
    assert "g.json" in refused("train", tmp_path / "g.json", *TINY_RUN)


def test_genotype_of_another_depth(refused, tmp_path):
    assert "2 cells" in refused("train", genotype_file(tmp_path), *TINY_RUN, "--set", "model.num_cells=3")


def trained_with(refused, finished, tmp_path, name: str, content: bytes) -> str:
    """Give such a weights file to a training from the finished search's genotype; return the refusal."""
    (tmp_path / name).write_bytes(content)
    source = runs.root() / finished.name / "genotype.json"
    return refused("train", source, "--init", "concomitant", "--weights", tmp_path / name, *TINY_RUN)


def test_weights_of_another_width(refused, finished):
    folder = runs.root() / finished.name
    weights = ("--init", "concomitant", "--weights", folder / "weights.safetensors")
    line = refused("train", folder / "genotype.json", *weights, *TINY_RUN, "--set", "model.init_channels=4")
    assert "do not fit the network" in line and "init_channels" in line


def test_weights_of_another_network(refused, finished, tmp_path):
    content = files.weights_bytes({"layer.weight": torch.zeros(2)})
    assert "do not fit the network" in trained_with(refused, finished, tmp_path, "w.safetensors", content)


def test_weights_that_would_run_code(refused, finished, tmp_path):
    buffer = io.BytesIO()
    torch.save({"stem": Dangerous(tmp_path / "created")}, buffer)
    assert "could run code" in trained_with(refused, finished, tmp_path, "w.pt", buffer.getvalue())
    assert not (tmp_path / "created").exists()


def test_truncated_weights(refused, finished, tmp_path):
    content = (runs.root() / finished.name / "weights.safetensors").read_bytes()
    assert "w.safetensors" in trained_with(refused, finished, tmp_path, "w.safetensors", content[:-5])


def test_damaged_weights_of_a_run(refused, finished, runs_folder):
    path = runs_folder / finished.name / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "checksum" in refused("train", finished.name, "--init", "concomitant", *TINY_RUN)
    path.unlink()
    assert "weights.safetensors" in refused("train", finished.name, "--init", "concomitant", *TINY_RUN)


@pytest.mark.parametrize("content", ["", "{}", '{"name": 3}'])
def test_damaged_record(refused, finished, runs_folder, content):
    (runs_folder / finished.name / "record.json").write_text(content)
    for arguments in (["show", finished.name], ["search", *TINY_RUN], ["train", finished.name, *TINY_RUN]):
        assert "record.json" in refused(*arguments)


def test_a_measurement_is_nothing_to_train(refused, runs_folder):
    config = {"data": {"image_size": 8}, "model": {"num_cells": 2}}
    plain = {"name": "memory-1", "kind": "memory", "config": config, "seed": 0, "result": {}, "provenance": {}}
    records.write(runs_folder / "memory-1", records.Record.model_validate(plain))
    assert "without a genotype" in refused("train", "memory-1", *TINY_RUN)


@pytest.fixture
def stopped(call, monkeypatch, runs_folder):
    """A search that the user stopped after five steps; its folder of checkpoints."""
    monkeypatch.setattr(carrying_out, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        stop_at(patch, Search, 5, KeyboardInterrupt)
        status, out, err = call("search", *TINY_RUN)
    assert (status, out) == (130, "") and err == "sswp: stopped; the same command goes on from the last checkpoint\n"
    (folder,) = runs_folder.glob("*/checkpoints")
    return folder


def test_stopped_search_goes_on(call, stopped):
    status, out, err = call("search", *TINY_RUN)
    assert status == 0 and runs.find(out.splitlines()[0]).provenance["resumed"] == 1
    assert "taken up at epoch 2, step 3" in err


def test_truncated_checkpoint_is_named_and_the_older_one_taken(call, stopped):
    newest = files.checkpoints(stopped)[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    status, _, err = call("search", *TINY_RUN)
    assert status == 0 and newest.name in err and "taken up at epoch 2, step 2" in err


def test_no_whole_checkpoint(refused, stopped):
    for path in files.checkpoints(stopped):
        path.write_bytes(path.read_bytes()[:1000])
    assert "none of the 2 checkpoints" in refused("search", *TINY_RUN, status=1, notes=2)


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_full_disk(refused, call, finished, monkeypatch, where):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, where, full)
        line = refused("search", *TINY_RUN, "--seed", "1", status=1)
    assert "No space left on device" in line and "free some space" in line
    assert call("search", *TINY_RUN, "--seed", "1")[0] == 0


def test_full_disk_in_the_middle_goes_on_later(call, refused, runs_folder, monkeypatch):
    written, write = [], files.write

    def until_full(path, *args, **kwargs):
        if path.suffix == ".pt":
            written.append(path)
            if len(written) == 2:
                raise files._unwritable(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        write(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(carrying_out, "EPOCH_SECONDS", -1.0)
        patch.setattr(files, "write", until_full)
        refused("search", *TINY_RUN, status=1)
    status, out, _ = call("search", *TINY_RUN)
    assert status == 0 and runs.find(out.splitlines()[0]).provenance["resumed"] == 1


def test_loss_that_is_not_finite(refused, monkeypatch):
    loss = Search.loss

    def broken(self, *args):
        value, metrics = loss(self, *args)
        return value * float("nan"), metrics

    monkeypatch.setattr(Search, "loss", broken)
    line = refused("search", *TINY_RUN, status=1)
    assert "step 0" in line and "lower lr" in line


def test_runs_folder_that_cannot_be_made(refused, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "file" / "runs"))
    assert "SSWP_RUNS" in refused("search", *TINY_RUN)


def test_removed_run_is_made_anew(call, finished, runs_folder):
    shutil.rmtree(runs_folder / finished.name)
    status, out, _ = call("search", *TINY_RUN)
    assert status == 0 and runs.find(out.splitlines()[0]).history == finished.history

"""Our files are the safetensors library's files, byte for byte the same for the same content, and hash themselves."""

import io

import fsspec
import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from datamodules.tensor_file import Blocks, DamagedFile, TensorFile, write_tensors

TENSORS = {
    "valid": torch.tensor([True, False, True]),
    'names with ü and "quotes"': torch.arange(7, dtype=torch.int16),
    "pose": torch.randn(5, 6, generator=torch.Generator().manual_seed(0)),
    "offsets": torch.arange(4),
    "nothing": torch.zeros(0, 3),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
}
STREAM = b"some bytes", b"", b" and more"
METADATA = {"clip": '{"sha256":"' + "0" * 64 + '"}', "a": "b"}


def content() -> dict:
    return {**TENSORS, "jpeg": Blocks(sum(map(len, STREAM)), STREAM)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file.safetensors"
    with open(path, "w+b") as file:
        write_tensors(file, content(), METADATA)
    return path


def test_the_library_reads_what_we_write(path):
    read = load_file(path)
    assert read.keys() == content().keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(read[name], tensor), name
        assert read[name].dtype == tensor.dtype
    assert bytes(read["jpeg"].numpy()) == b"some bytes and more"
    with safe_open(path, "pt") as file:
        assert METADATA.items() < file.metadata().items()


@pytest.mark.parametrize("place", ["local", "memory://store/file.safetensors"])
def test_we_read_what_the_library_writes_here_and_behind_a_url(tmp_path, place):
    path = tmp_path / "file.safetensors"
    save_file(TENSORS, path, {"a": "b"})
    if place != "local":
        fsspec.filesystem("memory").pipe(place, path.read_bytes())
    read = TensorFile(path if place == "local" else place)
    for name, tensor in TENSORS.items():
        assert torch.equal(read.tensor(name), tensor), name
    assert read.metadata == {"a": "b"}
    assert not read.is_whole()  # it carries no hash
    assert bytes(read.bytes("valid", 1, 3)) == b"\0\1"
    with pytest.raises(KeyError):
        read.tensor("no such tensor")


def test_same_content_same_bytes(path):
    other = io.BytesIO()
    tensors = dict(reversed(content().items()))
    tensors["jpeg"] = Blocks(19, [b"some bytes and more"])
    write_tensors(other, tensors, dict(reversed(METADATA.items())))
    assert other.getvalue() == path.read_bytes()


def test_any_flipped_bit_is_noticed(path):
    whole = path.read_bytes()
    assert TensorFile(path).is_whole()
    for position in range(8, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        try:
            assert not TensorFile(path).is_whole(), position
        except DamagedFile:
            continue


@pytest.mark.parametrize("broken", [b"", b"short", b"\xff" * 100, (2).to_bytes(8, "little") + b"[]", None])
def test_what_is_no_file_of_ours_is_refused(path, broken):
    path.write_bytes(path.read_bytes()[:-1] if broken is None else broken)
    with pytest.raises(DamagedFile):
        TensorFile(path)


def test_what_is_written_to_a_tensor_stays_in_memory(path):
    before = path.read_bytes()
    TensorFile(path).tensor("pose").zero_()
    assert path.read_bytes() == before
    assert torch.equal(TensorFile(path).tensor("pose"), TENSORS["pose"])


def test_a_stream_that_is_not_as_long_as_it_says_is_our_mistake():
    with pytest.raises(AssertionError):
        write_tensors(io.BytesIO(), {"jpeg": Blocks(5, [b"four"])}, {})

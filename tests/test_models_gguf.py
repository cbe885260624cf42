"""The conversion of the embedded model parses its file once; the conversion itself is a slow test."""

import gguf
import pytest

from metier.models.embedded import _parsed_once


def test_a_file_is_parsed_once_within_and_as_ever_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def reader(path: str) -> object:
        parsed.append(path)
        return object()

    names = gguf.get_tensor_name_map
    monkeypatch.setattr(gguf, "GGUFReader", reader)
    with _parsed_once():
        assert gguf.GGUFReader("a.gguf") is gguf.GGUFReader("a.gguf")
        arch = gguf.MODEL_ARCH.LLAMA
        assert gguf.get_tensor_name_map(arch, 2) is gguf.get_tensor_name_map(arch, 2)
    assert parsed == ["a.gguf"]
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == (reader, names)
    with pytest.raises(ZeroDivisionError), _parsed_once():
        raise ZeroDivisionError
    assert gguf.GGUFReader is reader

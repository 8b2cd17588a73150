import json
import os
import socket
import time

import pytest

from vj2_ddim_plugin.errors import BundleError, DataError
from vj2_ddim_plugin.files import read_json, require_regular_file


def test_a_regular_file_and_a_link_to_one(tmp_path):
    file, link = tmp_path / "a", tmp_path / "b"
    file.touch()
    link.symlink_to(file)
    assert require_regular_file(file, DataError) == file
    assert require_regular_file(str(link), DataError) == link


def device(path):
    try:
        os.mknod(path, 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


def hidden(path):
    path.touch(mode=0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")


def bound(path, monkeypatch):
    monkeypatch.chdir(path.parent)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path, _: None, "no such file"),
        (lambda path, _: path.mkdir(), "a folder"),
        (lambda path, _: os.mkfifo(path), "a named pipe"),
        (lambda path, _: device(path), "a device"),
        (bound, "a socket"),
        (lambda path, _: hidden(path), "without permission"),
        (lambda path, _: path.symlink_to("gone"), r"a link to gone that leads nowhere"),
        (lambda path, _: path.symlink_to(path), "a link to .*x that leads nowhere"),
    ],
)
@pytest.mark.parametrize(
    "read",
    [
        lambda path: require_regular_file(path, BundleError),
        lambda path: read_json(path, BundleError),
    ],
)
def test_what_is_no_file_is_named_and_never_opened(tmp_path, make, found, read, monkeypatch):
    path = tmp_path / "x"
    make(path, monkeypatch)
    with pytest.raises(BundleError, match=f"x: (found )?{found}.*, expected a"):
        read(path)


@pytest.mark.parametrize("name", ["nul\0", "a" * 3000, "file/below"])
def test_names_that_no_file_can_have(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="expected a regular file"):
        require_regular_file(tmp_path / name, DataError)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expecting value"),
        ("{", "cannot be read as JSON"),
        ("{} {}", "Extra data"),
        ("[1]", r"found \[1\], expected a JSON object"),
        ("null", "found None, expected a JSON object"),
        (b"\xff{}", "utf-8"),
        ("\ufeff{}", "BOM"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        ('{"a": [{"b": 1, "b": 1}]}', "the key 'b' stands twice"),
        ('{"' + "k" * 9999 + '": 1, "' + "k" * 9999 + '": 1}', "the key 'kkk.{3,40}stands twice"),
        ('{"a": NaN}', "'NaN' is not a finite number"),
        ('{"a": [-Infinity]}', "'-Infinity' is not a finite"),
        ('{"a": 1e400}', "'1e400' is not a finite"),
        ('{"a": ' + "9" * 5000 + "}", "an integer of 5000 digits"),
        ('{"a": ' + "[" * 64 + "]" * 64 + "}", "more than 64 levels deep"),
        ("[" * 1000 + "]" * 1000, "nested .*deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deep"),
        (b" " * (16 * 2**20) + b"{}", "larger than 16777216 bytes"),
    ],
)
def test_json_that_is_not_read(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.process_time()
    with pytest.raises(DataError, match=message) as caught:
        read_json(path, DataError)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 200
    assert time.process_time() - start < 1


def test_json_that_is_read(tmp_path):
    value = {"a": [1, -2.5e300, True, None, "\ud800 \x1b [/x]"], "b": {"c": 2**64 - 1}, "": []}
    value["deep"] = json.loads("[" * 63 + "]" * 63)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value))
    assert read_json(path, DataError) == value


def test_messages_escape_what_cannot_be_printed(tmp_path):
    for name, shown in ((b"\xff[/x].npy", "\\udcff[/x].npy"), (b"a\x1b[2J\tb", "a\\x1b[2J\\tb")):
        path = tmp_path / os.fsdecode(name)
        with pytest.raises(DataError) as caught:
            require_regular_file(path, DataError)
        assert f"/{shown}: no such file" in str(caught.value)
        str(caught.value).encode("utf-8")
    assert str(DataError("one\ntwo µ 中")) == "one\ntwo µ 中"

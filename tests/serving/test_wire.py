"""The wire format: what openpi's clients send comes in, and nothing else does."""

from typing import Any

import hypothesis.strategies as st
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from actionprior.serving.wire import DTYPES, WireError, pack, unpack
from tests.helpers.serving_client import encode

ARRAYS = st.sampled_from([*DTYPES.values()]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
)
MARKS = st.sampled_from([b"__ndarray__", b"data", b"dtype", b"shape", b"__npgeneric__", "task"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
    | st.text() | st.binary() | st.sampled_from(["<f4", "|O", "|u1", "<U4", "|V8", "<M8[ns]"])
    | ARRAYS.map(encode),
    lambda inner: st.lists(inner) | st.dictionaries(MARKS | st.text(), inner),
)  # fmt: skip


@given(st.dictionaries(st.text(), ARRAYS | st.text(max_size=99) | st.booleans(), max_size=9))
def test_what_goes_out_comes_in(message: dict[str, Any]) -> None:
    found = unpack(pack(message))
    assert found.keys() == message.keys()
    for key, value in message.items():
        np.testing.assert_array_equal(found[key], value)
        assert getattr(found[key], "dtype", None) == getattr(value, "dtype", None)


@given(ARRAYS)
def test_a_client_of_openpi_is_understood_and_understands(array: np.ndarray) -> None:
    client = pytest.importorskip("openpi_client.msgpack_numpy")
    np.testing.assert_array_equal(unpack(client.packb({"a": array}))["a"], array)
    np.testing.assert_array_equal(client.unpackb(pack({"a": array}))["a"], array)
    assert unpack(client.packb({"a": np.float32(0.5)})) == {"a": np.float32(0.5)}


def refusal(data: bytes) -> str:
    """Return the error message of a refused message; empty if it was accepted."""
    try:
        message = unpack(data)
    except WireError as error:
        return str(error)
    assert all(type(key) is str for key in message)
    return ""


@given(st.binary(max_size=300) | VALUES.map(msgpack.packb))
def test_no_message_does_harm(data: bytes) -> None:
    reason = refusal(data)
    assert "\n" not in reason
    assert len(reason) < 1000


@given(VALUES.map(msgpack.packb), st.data())
def test_no_damaged_message_does_harm(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for message in (bytes(damaged), whole[: data.draw(st.integers(0, len(whole)))]):
        assert "\n" not in refusal(message)


def array(**changes: Any) -> bytes:
    whole = encode(np.zeros((2, 3), np.float32))
    changed = whole | {key.encode(): value for key, value in changes.items()}
    return msgpack.packb({"a": {k: v for k, v in changed.items() if v is not None}})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no msgpack within bounds: .*incomplete"),
        (b"\xc1", "byte that no type begins with"),
        (b"\x80\x80", "bytes follow its end"),
        (b"\x93\x01\x02\x03", "is a list, expected a map"),
        (b"\x05", "is a int, expected a map"),
        (b"\x91" * 5000, "nested too deeply"),
        (b"\x81\xa1a" * 5000, "nested too deeply"),
        (b"\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
        (b"\xdf\xff\xff\xff\xff", "exceeds max_map_len"),
        (b"\xc6\xff\xff\xff\xff", "incomplete"),
        (b"\x81\xa1a\xdb\x00\x10\x00\x00" + b"x" * 2**20, "exceeds max_str_len"),
        (b"\x81\xa1a\xa1\xff", "utf-8"),
        (b"\x82\xa1a\x01\xa1a\x02", "a key twice"),
        (b"\x81\x01\x01", "int is not allowed for map key"),
        (b"\x81\xc4\x01a\x01", r"key b'a', expected strings"),
        (b"\x81\xa1a\xd6\xff\0\0\0\0", "max_ext_len"),
        (b"\x81\xa1a\xc7\x00\x05", "an extension type, 5"),
        (b"\x81\xa1a\xdc\x01\xff" + b"\x90" * 511, "over 64 lists"),
        (b"\x81\xa1a\x91\xc0", "a list with a NoneType in it"),
        (array(dtype="|O"), r"dtype '\|O', expected one of"),
        (array(dtype="<U6"), "dtype '<U6'"),
        (array(dtype=">f4"), "dtype '>f4'"),
        (array(dtype=["<f4"] * 2), "a list with a str"),
        (array(dtype="V4", shape=[6]), "dtype 'V4'"),
        (array(shape=[2, 4]), r"shape \[2, 4\] has 24 bytes, expected 32"),
        (array(shape=[-2, -3]), r"shape \[-2, -3\], expected a list"),
        (array(shape=[True, 6]), r"shape \[True, 6\]"),
        (array(shape=[1] * 5), "up to 4 lengths"),
        (array(shape=[0, 2**40], data=b""), "of 0 to 65536"),
        (array(shape=6), "shape 6"),
        (array(shape="a\nb"), r"shape 'a\\nb'"),
        (array(data="x" * 24), "data are a str"),
        (array(data=None), r"keys .*, expected"),
        (array(more=1), r"keys .*more.*, expected"),
        (msgpack.packb({"a": {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}}), "300"),
        (msgpack.packb({"a": {b"__npgeneric__": True, b"data": "1", b"dtype": "|u1"}}), "a str"),
    ],
)  # fmt: skip
def test_wrong_messages_are_refused_in_one_sentence(data: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message) as caught:
        unpack(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_array_costs_no_copy_and_cannot_be_written() -> None:
    array = unpack(pack({"a": np.ones(5)}))["a"]
    assert not array.flags.writeable


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([None]), np.zeros(2, complex), {1}])
def test_values_that_cannot_be_sent_are_refused(value: Any) -> None:
    with pytest.raises(WireError, match="cannot be sent"):
        pack({"a": value})

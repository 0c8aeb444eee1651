"""JSON, safetensors, Parquet and text: exact both ways, the same bytes each time, and Corrupt for anything else."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.errors import BadShape, Corrupt, UserError
from micrographia.core.store import (
    read_json,
    read_table,
    read_tensors,
    write_bytes,
    write_tensors,
)
from micrographia.core.store.exact import pack, unpack
from micrographia.core.store.formats import json_bytes, plain, table_bytes, tensors_bytes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.text(st.characters(exclude_characters="\0", codec="utf-8"))  # numpy drops trailing zeros
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


@given(JSON)
def test_json_comes_back_as_it_was(value):
    found = json.loads(json_bytes({"value": value}))
    assert found == {"schema": 1, "value": value}


def test_json_bytes_do_not_depend_on_the_order_of_the_keys():
    assert json_bytes({"a": 1, "b": {"c": 2, "d": 3}}) == json_bytes({"b": {"d": 3, "c": 2}, "a": 1})


def test_nan_is_null_and_infinities_are_words_in_json(tmp_path):
    write_bytes(tmp_path / "x.json", json_bytes({"nan": math.nan, "inf": np.float32(-math.inf), "list": [math.nan]}))
    assert read_json(tmp_path / "x.json") == {"nan": None, "inf": "-Infinity", "list": [None]}


def test_json_takes_arrays_tuples_paths_and_numpy_numbers(tmp_path):
    given = {"array": np.arange(3), "tuple": (1, 2), "path": tmp_path, "flag": np.bool_(True), 7: torch.ones(2)}
    expected = {"array": [0, 1, 2], "tuple": [1, 2], "path": str(tmp_path), "flag": True, "7": [1.0, 1.0]}
    assert plain(given) == expected


def test_json_refuses_what_it_cannot_hold():
    with pytest.raises(UserError, match="a set is no string"):
        json_bytes({"names": {1, 2}})
    with pytest.raises(UserError, match="'schema'"):
        json_bytes({"schema": 2})


@pytest.mark.parametrize("content", ["", '{"a": 1', "[1]", '{"schema": 2}', "\x00"])
def test_json_of_another_kind_is_corrupt(content, tmp_path):
    write_bytes(tmp_path / "x.json", content.encode())
    with pytest.raises(Corrupt, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(Corrupt, match=r"x\.json, which is missing"):
        read_json(tmp_path / "x.json")


TENSORS = {
    "b": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).T,  # not contiguous
    "a": torch.tensor(5, dtype=torch.int64),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3, dtype=torch.float64),
}


def test_tensors_come_back_with_their_bits_dtypes_and_shapes(tmp_path):
    write_tensors(tmp_path / "w.safetensors", TENSORS)
    found = read_tensors(tmp_path / "w.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_tensors_give_the_same_bytes_in_any_order_and_hold_no_date():
    again = dict(reversed(TENSORS.items()))
    assert tensors_bytes(TENSORS) == tensors_bytes(again)
    assert b"__metadata__" not in tensors_bytes(TENSORS)
    changed = {**TENSORS, "a": torch.tensor(6)}
    assert tensors_bytes(changed) != tensors_bytes(TENSORS)


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    whole = torch.arange(4.0)
    write_tensors(tmp_path / "w.safetensors", {"whole": whole, "part": whole[:2]})
    assert read_tensors(tmp_path / "w.safetensors")["part"].tolist() == [0.0, 1.0]


@given(st.lists(ANY_FLOAT), st.data())
def test_a_table_comes_back_as_it_was(tmp_path_factory, floats, data):
    n = len(floats)
    columns = {
        "loss": floats,
        "epoch": data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=n, max_size=n)),
        "word": data.draw(st.lists(WORDS, min_size=n, max_size=n)),
        "flag": data.draw(st.lists(st.booleans(), min_size=n, max_size=n)),
        "vector": np.arange(3.0 * n).reshape(n, 3),
    }
    path = tmp_path_factory.mktemp("table") / "t.parquet"
    write_bytes(path, table_bytes(columns))
    found = read_table(path)
    assert list(found) == list(columns)
    assert all(map(same, found["loss"].tolist(), floats))
    assert found["vector"].shape == (n, 3)
    assert np.array_equal(found["vector"], columns["vector"])
    for name in ("epoch", "word", "flag"):
        assert found[name].tolist() == columns[name]


def test_a_table_gives_the_same_bytes_each_time():
    columns = {"epoch": np.arange(1000), "loss": np.linspace(1, 0, 1000)}
    assert table_bytes(columns) == table_bytes({name: column.tolist() for name, column in columns.items()})


def test_none_among_numbers_is_nan_in_a_table(tmp_path):
    write_bytes(tmp_path / "t.parquet", table_bytes({"loss": [1.0, None], "none": [None, None]}))
    found = read_table(tmp_path / "t.parquet")
    assert found["loss"].tolist()[0] == 1.0
    assert np.isnan(found["loss"][1])
    assert np.isnan(found["none"]).all()


def test_a_table_without_columns_or_rows_is_a_table(tmp_path):
    for columns in ({}, {"loss": []}):
        write_bytes(tmp_path / "t.parquet", table_bytes(columns))
        found = read_table(tmp_path / "t.parquet")
        assert {name: len(column) for name, column in found.items()} == dict.fromkeys(columns, 0)


def test_a_table_refuses_ragged_columns():
    with pytest.raises(BadShape, match=r"'a': 1, 'b': 2"):
        table_bytes({"a": [1], "b": [1, 2]})
    with pytest.raises(BadShape, match="'pair'"):
        table_bytes({"pair": [{"x": 1}]})


@pytest.mark.parametrize("suffix", ["safetensors", "parquet"])
def test_a_binary_file_cut_short_is_corrupt(suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    read = read_tensors if suffix == "safetensors" else read_table
    data = tensors_bytes({"a": torch.ones(50)}) if suffix == "safetensors" else table_bytes({"a": np.ones(50)})
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(Corrupt, match=f"{path}"):
            read(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY_FLOAT | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text().filter(lambda key: not key.startswith("$")), inner, max_size=3)
    ),
    max_leaves=10,
)


def alike(one, other) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return same(one, other)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


@given(VALUES)
def test_packed_values_survive_json_exactly(value):
    packed = json.loads(json.dumps(pack(value, name="x", arrays={}), allow_nan=False))
    assert alike(unpack(packed, {}), value)


def test_the_comparison_of_packed_values_can_fail():
    assert not alike({"a": [1.0]}, {"a": (1.0,)})
    assert not alike([math.nan], [None])
    assert not alike(1, True)
    assert not alike([1, 2], [1])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "uint8", "bool", "<U3"])
def test_packed_arrays_keep_dtype_and_shape(dtype):
    array = np.array([[1, 0], [0, 1]]).astype(dtype)
    arrays = {}
    packed = json.loads(json.dumps(pack({"z": array}, name="figure", arrays=arrays)))
    found = unpack(packed, arrays)["z"]
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert list(arrays) == ([] if dtype == "<U3" else ["figure.z"])


def test_what_cannot_be_packed_is_named():
    with pytest.raises(UserError, match=r"figure\.z.*array of complex128"):
        pack({"z": np.zeros(2, dtype=complex)}, name="figure", arrays={})
    with pytest.raises(UserError, match=r"figure\.z.*found a set"):
        pack({"z": {1}}, name="figure", arrays={})
    with pytest.raises(UserError, match=r"do not begin with \$"):
        pack({"$array": "x"}, name="figure", arrays={})

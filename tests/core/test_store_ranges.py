"""Tables written part by part: any range of rows comes back, changed bytes are noticed, threads may share a reader."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.errors import Corrupt
from micrographia.core.store.ranges import RangeTable, table_chunks

SIZES = (3, 1, 5, 2)
WORDS = [f"w{i}<b>" for i in range(sum(SIZES))]


def parts():
    start = 0
    for n in SIZES:
        at = np.arange(start, start + n)
        yield {
            "at": at,
            "pair": np.stack([at, -at], 1).astype(np.float32),
            "even": at % 2 == 0,
            "word": WORDS[start : start + n],
        }
        start += n


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("ranges") / "some.parquet"
    found.write_bytes(b"".join(table_chunks(parts())))
    return found


@given(st.data())
def test_any_range_is_what_was_written(path, data):
    start = data.draw(st.integers(0, 10))
    stop = data.draw(st.integers(start + 1, 11))
    found = RangeTable(path).rows(start, stop)
    assert found["at"].tolist() == list(range(start, stop))
    assert found["pair"].tolist() == [[i, -i] for i in range(start, stop)]
    assert found["pair"].dtype == np.float32
    assert found["even"].tolist() == [i % 2 == 0 for i in range(start, stop)]
    assert found["word"] == WORDS[start:stop]


def test_a_part_is_written_before_the_next_is_made():
    made = []

    def noted():
        for part in parts():
            made.append(len(part["at"]))
            yield part

    chunks = table_chunks(noted())
    assert next(chunks)[:4] == b"PAR1"
    assert made == [3]
    assert sum(1 for _ in chunks) == len(SIZES)
    assert list(table_chunks([])) == []


def test_columns_may_be_chosen_and_rows_that_are_not_there_are_refused(path):
    table = RangeTable(path)
    assert table.rows(columns=["word"]).keys() == {"word"}
    assert len(table) == 11
    for start, stop in ((0, 12), (4, 4), (-1, 2), (11, 12)):
        with pytest.raises(IndexError, match="there are 11"):
            table.rows(start, stop)


def test_threads_share_a_reader(path):
    table = RangeTable(path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: table.rows(i % 11, i % 11 + 1)["word"], range(200)))
    assert found == [[WORDS[i % 11]] for i in range(200)]


@pytest.mark.parametrize("damage", ["cut short", "altered", "empty", "missing"])
def test_damage_is_told(path, tmp_path, damage):
    data = bytearray(path.read_bytes())
    if damage == "altered":
        data[30:60] = bytes(255 - each for each in data[30:60])
    changed = tmp_path / "changed.parquet"
    if damage != "missing":
        changed.write_bytes({"cut short": data[:-5], "altered": data, "empty": b""}[damage])
    with pytest.raises(Corrupt, match="changed"):
        RangeTable(changed).rows(0, 2)

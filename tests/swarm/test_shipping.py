"""Records are sent until the master has said that it wrote them, and never written twice."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kvswarm.records import Record, decode_batch
from kvswarm.swarm.fleet import Numbers
from kvswarm.swarm.shipping import BATCH_RECORDS, Shipping, squeezed, unsqueezed


def record(index: int) -> Record:
    return Record(
        index=index, worker=0, phase="measure", scenario="s", endpoint="chat", intended_ns=index
    )


class Line:
    """A line to a master that loses what a test says it loses."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.written: dict[int, bytes] = {}

    def send(self, kind: str, message: dict[str, Any]) -> None:
        assert kind == "kv_records"
        self.sent.append(message)

    def indices(self) -> list[int]:
        return [r.index for blob in self.written.values() for r in decode_batch(blob)]


@given(
    records=st.integers(0, 5 * BATCH_RECORDS),
    lost=st.lists(st.sampled_from(["batch", "acknowledgement", "neither"]), max_size=20),
    squeeze=st.booleans(),
)
def test_whatever_is_lost_on_the_way_every_record_is_written_once(
    records: int,
    lost: list[str],
    squeeze: bool,  # noqa: FBT001 - by name
) -> None:
    """A connection may break before a batch has come, or after it was written."""
    line, numbers = Line(), Numbers()
    shipping = Shipping(line.send, lambda: records, squeeze=squeeze)
    for index in range(records):
        if shipping.add(record(index)):
            shipping.ship()
    shipping.ship()
    fates = [*lost, *["neither"] * 20]
    while shipping.unwritten:
        sent, line.sent = line.sent, []
        for message in sent:
            fate = fates.pop(0) if fates else "neither"
            number, blob, size_bytes = message["number"], message["blob"], message["size_bytes"]
            if fate != "batch" and number not in numbers:
                numbers.add(number)
                line.written[number] = blob if size_bytes is None else unsqueezed(blob, size_bytes)
            if fate == "neither":
                shipping.acknowledged(number)
        shipping.master_back()
    assert sorted(line.indices()) == list(range(records))


def test_while_the_master_is_away_nothing_is_sent_and_then_all_of_it() -> None:
    """The queue of the socket would fill instead."""
    line = Line()
    shipping = Shipping(line.send, lambda: 0, squeeze=False)
    shipping.add(record(0))
    shipping.master_away()
    shipping.ship()
    shipping.add(record(1))
    shipping.ship()
    assert line.sent == []
    assert shipping.unwritten == 2
    shipping.master_back()
    assert [message["number"] for message in line.sent] == [0, 1]


def test_a_worker_that_keeps_too_much_has_no_room_until_some_of_it_is_written() -> None:
    """Or a master that is too slow would make its workers grow without bound."""
    line = Line()
    shipping = Shipping(line.send, lambda: 0, squeeze=False, keep_bytes=1000)
    while shipping.room.is_set():
        shipping.add(record(0))
        shipping.ship()
    kept_bytes = sum(len(message["blob"]) for message in line.sent)
    assert 1000 <= kept_bytes < 2000
    assert shipping.was_full
    shipping.acknowledged(0)
    assert shipping.room.is_set()


@given(order=st.permutations(range(12)), asked=st.integers(0, 12))
def test_a_batch_is_known_whatever_the_order_in_which_batches_come(
    order: list[int], asked: int
) -> None:
    numbers, come = Numbers(), set()
    for number in order:
        assert (asked in numbers) == (asked in come)
        numbers.add(number)
        come.add(number)
    assert numbers.low == 12
    assert not numbers.ahead


@given(blob=st.binary(max_size=5000))
def test_a_squeezed_batch_comes_out_as_it_was(blob: bytes) -> None:
    assert unsqueezed(squeezed(blob), len(blob)) == blob

"""The partition of a document is a promise to readers in any language, and to logs that exist."""

from __future__ import annotations

import pytest

from pgdoc.relay.partitions import EVERY, encoded, partition_of


@pytest.mark.parametrize(("document_id", "partition"), [("o-1", 10), ("ä", 3)])
def test_a_partition_is_the_crc32_of_the_id_in_utf_8_modulo_their_number(document_id: str, partition: int) -> None:
    assert partition_of(document_id, 16) == partition
    assert partition_of(document_id, 1) == 0


def test_an_event_of_a_whole_collection_belongs_to_every_partition() -> None:
    assert partition_of(None, 16) == EVERY


@pytest.mark.parametrize(
    ("text", "found"),
    [("orders", "orders"), ("a_b-C9", "a_b-C9"), ("a.b", "a%2Eb"), ("~*> \r\n", "%7E%2A%3E%20%0D%0A"), ("ä", "%C3%A4")],
)
def test_all_but_letters_digits_underscores_and_hyphens_are_percent_encoded(text: str, found: str) -> None:
    assert encoded(text) == found

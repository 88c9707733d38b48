from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.errors import InvalidInput, InvalidName
from pgdoc.model.names import check_name
from pgdoc.model.table_names import check_table, titled
from pgdoc.model.topics import check_topic, check_topics, is_topic, selectors_of, topic_name, topic_of

words = st.from_regex(r"[A-Za-z0-9_-]{1,9}", fullmatch=True)
topics = st.lists(words, min_size=1, max_size=6).map(".".join)


@given(topics)
def test_a_topic_of_words_is_taken_and_found_in_its_name_again(topic: str) -> None:
    assert check_topic(topic) == topic
    assert topic_of(topic_name(topic)) == topic
    assert is_topic(topic_name(topic))
    assert check_topics([topic]) == {topic_name(topic)}


@pytest.mark.parametrize(
    "topic", ["", ".", "a.", ".a", "a..b", "a b", "a*", "*", "a.*", "é", "a\n", "x" * 201, 5, None]
)
def test_anything_else_is_no_topic(topic: Any) -> None:
    with pytest.raises(InvalidName, match="topic"):
        check_topic(topic)


@pytest.mark.parametrize("selected", ["", "a*", "*.a", "a.*.b", "a.**", "a.", "**", "x" * 199 + ".*", 5, None])
def test_a_selection_is_a_topic_a_prefix_or_all(selected: Any) -> None:
    with pytest.raises(InvalidName):
        check_topics([selected])


def test_a_selection_names_its_topics_in_a_list() -> None:
    assert check_topics(None) == frozenset()
    assert check_topics(["a", "a.*", "b.c"]) == {"topic:a", "topic:a.*", "topic:b.c"}
    assert check_topics(["a.b", "a.b.*", "a.*", "b"]) == {"topic:a.*", "topic:b"}
    assert check_topics(["a", "a.*", "*"]) == {"topic:*"}
    wrongs: tuple[Any, ...] = ("order.shipped", [])
    for wrong in wrongs:
        with pytest.raises(InvalidInput, match=re.escape("topics")):
            check_topics(wrong)


@given(topics, topics)
def test_a_prefix_selects_the_topics_below_it_and_no_other(topic: str, above: str) -> None:
    selectors = selectors_of(topic_name(topic))
    assert {topic_name(topic), "topic:*"} <= set(selectors)
    assert (topic_name(f"{above}.*") in selectors) == topic.startswith(f"{above}.")


def test_no_collection_or_table_has_the_name_of_a_topic() -> None:
    with pytest.raises(InvalidName):
        check_name("topic:a", "collection")
    with pytest.raises(InvalidName, match="is the name of a topic"):
        check_table("topic:order.shipped")
    assert titled("topic:order.shipped", "docs") == 'topic "order.shipped"'

"""What a dry run says of a document: differences, and fields that the cluster leaves out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.errors import UsageError
from kvswarm.kserve.applying import command_line, differences, dropped, service_of

NAMES = st.text("abc", min_size=1, max_size=3)
VALUES = st.recursive(
    st.integers(0, 3) | st.text("xy", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=4)


@given(document=DOCUMENTS)
def test_a_document_is_as_it_was_and_loses_nothing(document: dict[str, Any]) -> None:
    """Whatever it holds."""
    assert list(differences(document, copy.deepcopy(document))) == []
    assert list(dropped(document, copy.deepcopy(document))) == []


@given(before=DOCUMENTS, after=DOCUMENTS)
def test_documents_that_differ_have_a_difference(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    """None is missed, and each is told from its own side."""
    assert bool(list(differences(before, after))) == (before != after)
    assert len(list(differences(before, after))) == len(list(differences(after, before)))


def test_a_difference_says_where_and_from_what_to_what() -> None:
    """By the path that `kubectl explain` takes."""
    before = {"spec": {"timeout": 60, "args": ["a", "b"], "old": 1}}
    after = {"spec": {"timeout": 1800, "args": ["a", "c"], "new": {"x": 2}}}
    assert list(differences(before, after)) == [
        "spec.args[1]: b -> c",
        "spec.new: nothing -> {'x': 2}",
        "spec.old: 1 -> nothing",
        "spec.timeout: 60 -> 1800",
    ]


def test_what_the_server_and_controllers_write_is_no_difference() -> None:
    """Versions, managers, the status; labels are."""
    before = {"metadata": {"resourceVersion": "1", "generation": 1, "labels": {"a": "1"}}}
    after = {
        "metadata": {"resourceVersion": "2", "managedFields": [{}], "labels": {"a": "2"}},
        "status": {"url": "http://a"},
    }
    assert list(differences(before, after)) == ["metadata.labels.a: 1 -> 2"]


def test_a_field_that_did_not_come_back_was_left_out() -> None:
    """An older KServe drops what it does not know, without a word. Defaults may be added."""
    sent = {"spec": {"canary": [{"percent": 5}], "predictor": {"timeout": 5}}}
    kept = {"spec": {"canary": [{}], "predictor": {"timeout": 5, "minReplicas": 1}}}
    assert list(dropped(sent, kept)) == ["spec.canary[0].percent"]


def test_a_deployment_has_one_service() -> None:
    """Of two, one would be left alone."""
    metadata = {"name": "a", "namespace": "llm"}
    one = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    document = {**one, "metadata": metadata}
    assert service_of([document]).words == "inferenceservice/a in namespace llm"
    for documents in ([], [document, document]):
        with pytest.raises(UsageError, match=f"hold {len(documents)} services"):
            service_of(documents)


def test_a_command_line_can_be_pasted() -> None:
    """Whatever the context is called."""
    assert command_line("teardown", "llm", "qwen", "my cluster") == (
        "kvswarm teardown --namespace llm --service qwen --context 'my cluster'"
    )

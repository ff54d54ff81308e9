"""docs/settings.md is what ``make docs`` writes."""

from scripts import settings_docs


def test_document_is_up_to_date() -> None:
    assert settings_docs.DOCUMENT.read_text() == settings_docs.document(), "run `make docs`"

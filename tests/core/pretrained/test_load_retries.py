"""A Hub that does not answer is told of once."""

import logging

from micrographia.core.events import Note
from micrographia.core.pretrained.load import CLIENT, noted_once


def test_new_tries_are_one_note_and_other_warnings_pass(caplog):
    notes, client = [], logging.getLogger(CLIENT)
    with caplog.at_level(logging.WARNING), noted_once(notes.append):
        for i in range(5):
            client.warning("'[Errno -2] Name or service not known' thrown while requesting HEAD https://x/config.json")
            client.warning(f"Retrying in {2**i}s [Retry {i + 1}/5].")
        client.warning("Rate limited. Waiting 3s before retry [Retry 1/5].")
    assert [type(note) for note in notes] == [Note]
    assert "does not answer" in notes[0].text
    assert [record.message for record in caplog.records] == ["Rate limited. Waiting 3s before retry [Retry 1/5]."]


def test_afterwards_the_client_speaks_for_itself_again(caplog):
    client = logging.getLogger(CLIENT)
    with noted_once(lambda event: None):
        pass
    client.warning("Retrying in 1s [Retry 1/5].")
    assert len(caplog.records) == 1


def test_the_client_still_logs_where_it_is_listened_to():
    from huggingface_hub.utils import _http

    assert _http.logger.name == CLIENT

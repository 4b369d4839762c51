"""Holds the server's dialogues over real sockets, as far as they do not need what only a fake can do."""

from pathlib import Path
from typing import Any

import pytest

from mailsuite.net.selfsigned import make_self_signed
from mailsuite.net.tls import ServerTLS
from tests.dialogues.dialogue import Dialogue, Mark, read_dialogues
from tests.dialogues.runners import at_random
from tests.dialogues.sockets import hold_over_sockets

DIALOGUES = [
    dialogue
    for dialogue in read_dialogues(Path(__file__).parent / "server")
    if not dialogue.words("certificate")  # the client has none here
]
CUTTABLE = [dialogue for dialogue in DIALOGUES if dialogue.words("ways") != ("whole",)]
# TLS has no half-closed connections, and does not begin within TLS.
UNDER_TLS = [
    dialogue
    for dialogue in DIALOGUES
    if Mark(("eof",)) not in dialogue.steps and not {"starttls", "require-tls"} & {*dialogue.words("offer")}
]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTLS:
    return ServerTLS(*make_self_signed(tmp_path_factory.mktemp("tls"), "mx.example.net"))


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=[dialogue.name for dialogue in DIALOGUES])
def test_dialogue_over_tcp(dialogue: Dialogue, run: Any, reactor: Any, tls: ServerTLS) -> None:
    assert dialogue.steps
    run(hold_over_sockets(dialogue, reactor, tls))


@pytest.mark.parametrize("dialogue", CUTTABLE, ids=[dialogue.name for dialogue in CUTTABLE])
def test_dialogue_over_tcp_in_random_pieces(dialogue: Dialogue, run: Any, reactor: Any, tls: ServerTLS) -> None:
    assert dialogue.steps
    run(hold_over_sockets(dialogue, reactor, tls, cut=at_random(dialogue.name)))


@pytest.mark.parametrize("dialogue", UNDER_TLS, ids=[dialogue.name for dialogue in UNDER_TLS])
def test_dialogue_over_implicit_tls(dialogue: Dialogue, run: Any, reactor: Any, tls: ServerTLS) -> None:
    assert dialogue.steps
    run(hold_over_sockets(dialogue, reactor, tls, implicit=True))

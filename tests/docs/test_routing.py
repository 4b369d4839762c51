"""docs/routing.md: its configurations are valid, together too, and mean what the page says."""

import tomllib
from pathlib import Path

import pytest

from mailsuite.config import Settings
from mailsuite.delivery.agents.pipe import WORDS
from mailsuite.mail.address import parse_mailbox
from tests.docs.pages import ROOT, blocks

PAGE = "docs/routing.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")


def of_language(language):
    return [block.text for block in blocks(PAGE) if block.language == language]


@pytest.mark.parametrize("text", of_language("toml"))
def test_configurations_are_valid(text):
    assert Settings.parse(tomllib.loads(text), PAGE, Path())


def test_the_recipients_of_the_page_are_addresses_and_its_agents_are_there():
    settings = Settings.parse(
        tomllib.loads(next(text for text in of_language("toml") if "[[agent]]" in text)), PAGE, Path()
    )
    assert {route.agent for route in settings.route} == {agent.name for agent in settings.agent}
    assert all(parse_mailbox(route.recipient.replace("*", "x")) for route in settings.route)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_a_command_is_told(word):
    assert f"`{{{word}}}`" in TEXT

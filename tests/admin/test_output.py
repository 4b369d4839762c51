"""What commands print: tables that cut nothing and take nothing for markup, JSON that programs can read."""

import json

import pytest

from mailsuite.admin.output import columns, print_rows

ROWS = [
    {"name": "[bold]x[/bold]", "many": ["one", "two"], "flag": True, "number": 7, "hidden": "more"},
    {"name": ":smile: " + "y" * 300, "many": [], "flag": False, "number": 0, "hidden": ""},
]
TITLES = {"name": "Name", "number": "No.", "flag": "Flag", "many": "Many"}


@pytest.fixture
def printed(capsys):
    def printed(rows, *, as_json):
        print_rows(rows, TITLES, as_json=as_json)
        return capsys.readouterr().out

    return printed


def test_a_table_has_the_columns_that_are_named_in_their_order(printed):
    lines = printed(ROWS, as_json=False).splitlines()
    assert lines[0].split() == ["Name", "No.", "Flag", "Many"]
    assert lines[2].split() == ["[bold]x[/bold]", "7", "yes", "one"]
    assert lines[3].split() == ["two"]
    assert "more" not in "".join(lines)


def test_nothing_in_a_table_is_cut_or_taken_for_markup(printed):
    text = printed(ROWS, as_json=False)
    assert "y" * 300 in text
    assert ":smile:" in text
    assert "\x1b" not in text


def test_what_commands_a_terminal_becomes_a_mark(printed, capsys):
    hostile = "\x1b]0;pwned\x07\x9b2J\u202eevil\r\n[a]"
    row = {"name": hostile, "many": ["one", hostile], "flag": True, "number": 7}
    text = printed([row], as_json=False)
    assert text.count("?]0;pwned??2J?evil??[a]") == 2
    assert all(character.isprintable() or character == "\n" for character in text)
    assert columns([row], TITLES)[2].startswith("?]0;pwned??2J?evil??[a]   7")
    assert json.loads(printed([row], as_json=True)) == [row]


def test_an_empty_table_is_its_heading(printed):
    assert printed([], as_json=False).split()[:4] == ["Name", "No.", "Flag", "Many"]


def test_json_has_all_of_every_row(printed):
    assert json.loads(printed(ROWS, as_json=True)) == ROWS
    assert json.loads(printed([], as_json=True)) == []

"""Options and what they select."""

import click
import pytest
from click.testing import CliRunner

from mailsuite.admin.command import root
from mailsuite.admin.queue.choosing import choosing, choosing_to_change
from mailsuite.mail.route import Destination
from mailsuite.mail.selection import EVERYTHING, QueueState, Selection


def selected(*arguments, changing=False, stdin=None):
    """What a command line selects; the error where it does not."""
    got = []

    @click.command()
    @(choosing_to_change if changing else choosing)
    def command(*, selection):
        got.append(selection)

    result = CliRunner().invoke(command, arguments, input=stdin)
    return got[0] if result.exit_code == 0 else result.output


@pytest.mark.parametrize(
    ("arguments", "selection"),
    [
        ((), EVERYTHING),
        (("hoe1", "HOE2", "hoe1"), Selection(("HOE1", "HOE2"))),
        (("--domain", "Example.ORG"), Selection(domain="example.org")),
        (("--domain", ".bücher.example"), Selection(domain=".xn--bcher-kva.example")),
        (("--sender", "<>"), Selection(sender="<>")),
        (("--recipient", "*@example.org"), Selection(recipient="*@example.org")),
        (("--destination", "relay:[mx.test]:25"), Selection(destination=Destination("relay", "[mx.test]:25"))),
        (("--destination", "tickets"), Selection(destination=Destination("tickets"))),
        (("--state", "on-hold"), Selection(state=QueueState.ON_HOLD)),
        (("--state", "for-customer"), Selection(state=QueueState.FOR_CUSTOMER)),
        (("--older", "2h", "--younger", "3d"), Selection(older_than=7200.0, younger_than=259200.0)),
        (("--larger", "10 MiB", "--smaller", "20M"), Selection(larger_than=10 * 2**20, smaller_than=20 * 2**20)),
        (("--error", "greylist", "HOE1"), Selection(("HOE1",), error="greylist")),
    ],
)
def test_options_are_conditions(arguments, selection):
    assert selected(*arguments) == selection


def test_help_tells_of_ids_on_standard_input():
    for name in ("hold", "release", "retry", "requeue", "expire", "delete"):
        assert "`-` in the place of IDs" in CliRunner().invoke(root, ["queue", name, "--help"]).output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("HOE-1",), "'HOE-1' is not a queue id; see `mailsuite queue list`"),
        (("--domain", "a b"), "'a b': it is not a domain name; write it as in example.org, or .example.org for those"),
        (("--older", "soon"), 'give seconds as a number, or text such as "30s"'),
        (("--larger", "big"), 'give octets as a number, or text such as "256 KiB"'),
        (("--destination", "example.org"), "write it as `queue top` shows it, as in relay:example.org"),
        (("--destination", "relay"), "write it as `queue top` shows it, as in relay:example.org"),
        (("--state", "lost"), "is not one of 'waiting', 'due', 'active', 'on-hold', 'for-customer'"),
    ],
)
def test_what_is_wrong_is_a_sentence_with_its_cure(arguments, text):
    assert text in " ".join(selected(*arguments).replace("│", " ").split())


def test_ids_come_from_standard_input_the_first_word_of_each_line():
    listed = "hoe1\n\nHOE2   3 hours  bob@example.net\n"
    assert selected("-", stdin=listed, changing=True) == Selection(("HOE1", "HOE2"))
    assert "there are no queue ids on standard input" in selected("-", stdin="\n", changing=True)


def test_what_changes_something_must_be_told_what():
    assert "Name ids or conditions, or say --all." in selected(changing=True)
    assert selected("--all", changing=True) == EVERYTHING
    assert "--all is for everything; leave it out" in selected("--all", "--error", "x", changing=True)
    assert selected("--error", "x", changing=True) == Selection(error="x")

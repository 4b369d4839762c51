"""`mailsuite route`: where mail goes and why, as people and programs read it."""

import json
import socket
import subprocess
import sys
import threading

import dns.message
import dns.rcode
import dns.rrset
import pytest

RECORDS = {
    ("there.example.", "MX"): ["20 mx2.there.example.", "10 mx1.there.example."],
    ("mx1.there.example.", "A"): ["192.0.2.1"],
    ("mx1.there.example.", "AAAA"): ["2001:db8::1"],
    ("mx2.there.example.", "A"): ["192.0.2.2"],
    ("null.example.", "MX"): ["0 ."],
    ("dangling.example.", "MX"): ["10 gone.example.", "20 none.example."],
    ("none.example.", "TXT"): ["nothing else"],
    ("broken.example.", "MX"): ["10 gone.example.", "20 fails.example."],
    ("half.example.", "MX"): ["10 gone.example.", "20 mx1.there.example."],
    ("smart.example.", "A"): ["192.0.2.3"],
}
CONFIG = """
hostname = "mx.here.example"
[relay]
resolver = "127.0.0.1:{port}"
dane = "off"
mta_sts = false
[accounts]
postmaster = "admin@there.example"
[[agent]]
name = "tickets"
type = "discard"
[[route]]
recipient = "tickets@any.example"
agent = "tickets"
[[route]]
domain = "slow.example"
next_hop = ["smart.example:587", "mx:there.example"]
tls = "required"
[[route]]
domain = "nowhere.example"
next_hop = ["gone.example", "none.example"]
[[route]]
domain = "proved.example"
next_hop = "smart.example:26"
tls = "dane"
[[route]]
sender = "@shop.example"
next_hop = "smart.example"
"""


@pytest.fixture
def name_server():
    """A name server of these records on a port of the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        port = server.getsockname()[1]
        yield port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"end", ("127.0.0.1", port))
        thread.join(10)


def serve(server):
    while True:
        octets, peer = server.recvfrom(4096)
        if octets == b"end":
            return
        question = dns.message.from_wire(octets)
        response = dns.message.make_response(question)
        asked = question.question[0]
        name, kind = asked.name.to_text().lower(), dns.rdatatype.to_text(asked.rdtype)
        found = RECORDS.get((name, kind), [])
        if name == "fails.example.":
            response.set_rcode(dns.rcode.SERVFAIL)
            server.sendto(response.to_wire(), peer)
            continue
        if found:
            response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *found))
        elif not any(known == name for known, _ in RECORDS):
            response.set_rcode(dns.rcode.NXDOMAIN)
        server.sendto(response.to_wire(), peer)


@pytest.fixture
def ask(tmp_path, name_server):
    """Run `mailsuite route` with these arguments."""
    file = tmp_path / "m.toml"
    file.write_text(CONFIG.format(port=name_server))

    def ask(*arguments):
        command = [sys.executable, "-m", "mailsuite", "--config", str(file), "route", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return ask


def test_rules_and_answers_of_the_dns_are_told(ask, tmp_path) -> None:
    done = ask("bob@there.example")
    assert done.returncode == 0, done.stderr
    assert "bob@there.example: MX of the domain; the MX is asked." in done.stdout
    lines = [line.split() for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert lines[0] == ["1", "mx1.there.example", "25", "192.0.2.1", "opportunistic"]
    assert lines[1] == ["2", "mx2.there.example", "25", "192.0.2.2", "opportunistic"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.toml"]  # nothing was made


def test_programs_get_json(ask) -> None:
    done = ask("--json", "bob@slow.example")
    said = json.loads(done.stdout)
    assert said["rules"][0].startswith("bob@slow.example: route[1] (slow.example); it goes to [smart.example]:587,mx:")
    [target] = said["targets"]
    assert target["destination"] == "relay:[smart.example]:587,mx:there.example"
    found = [(host["host"], host["port"], host["addresses"], host["tls"]) for host in target["hosts"]]
    assert found == [
        ("smart.example", 587, ["192.0.2.3"], "required"),
        ("mx1.there.example", 25, ["192.0.2.1", "2001:db8::1"], "required"),
        ("mx2.there.example", 25, ["192.0.2.2"], "required"),
    ]
    assert [host.get("preference") for host in target["hosts"]] == [None, 10, 20]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["tickets@any.example"], 0, "the agent tickets takes it"),
        (["bob@there.example", "--sender", "us@shop.example"], 0, "it goes to [smart.example]:25"),
        (["bob@null.example"], 69, "5.1.10 null.example does not accept mail"),
        (["bob@gone.example"], 69, "5.1.2 gone.example: no such domain"),
        (["bob@gone.example", "--no-dns"], 0, "the MX is asked"),
        (["bob@dangling.example"], 69, "none of the hosts can be sent to"),
        (["bob@broken.example"], 75, "none of the hosts can be sent to"),
        (["bob@half.example"], 0, "mx1.there.example"),
        (["bob@nowhere.example"], 75, "none of the hosts can be sent to"),
        (["bob@proved.example"], 75, "nothing may be sent"),
        (["bob@there.example", "--sender", "us@shop.example", "--no-dns"], 0, "[smart.example]:25"),
        (["bob"], 2, "it is not an address"),
        (["bob@there.example", "--sender", "x"], 2, "x: it is not an address"),
    ],
)
def test_what_would_be_refused_ends_with_another_status(ask, arguments, status, said) -> None:
    done = ask(*arguments)
    assert said in done.stdout + done.stderr
    assert done.returncode == status
    assert "Traceback" not in done.stderr

"""`mailsuite pull`, `network-up` and `etrn` as processes: through a running server, without one, and their statuses."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mailsuite.admin.pull import expect_owner, in_words
from mailsuite.admin.running import Failed
from mailsuite.config import Settings
from mailsuite.session.pulling import PullProgress, PullStage
from tests.instance import COMMAND, ENVIRONMENT, Instance, mailsuite
from tests.interop.on_demand import CREDENTIALS, HOME, content, home, pull
from tests.peers.certificate import Certificate, self_signed
from tests.peers.lines import Line, LineLost, Message
from tests.peers.odmr_provider import OdmrProvider
from tests.peers.process import LOOPBACK, free_ports, wait_until

NEVER = {"at_start": False}


def messages(count: int) -> list[Message]:
    return [Message("x@away.test", [f"alice@{HOME}"], content(number)) for number in range(count)]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def providers(certificate: Certificate) -> Iterator[Callable[..., OdmrProvider]]:
    started: list[OdmrProvider] = []

    def start(**arguments: Any) -> OdmrProvider:
        given = {"domains": (HOME,), "certificate": certificate, "tls": "starttls", **CREDENTIALS, **arguments}
        started.append(OdmrProvider(**given))
        started[-1].start()
        return started[-1]

    yield start
    for provider in started:
        provider.stop()


def customer(directory: Path, certificate: Certificate, *pulls: dict[str, Any]) -> Instance:
    """The customer's server, which nobody has started."""
    return home(directory, *pulls, settings={"relay.ca_file": str(certificate.chain)})


def command(instance: Instance, *arguments: str) -> tuple[int, str]:
    done = mailsuite("--config", instance.configuration, *arguments)
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


# ------------------------------------------------------------------------------------- without a server


def test_without_a_server_the_command_pulls_and_delivers_by_itself(tmp_path, certificate, providers):
    provider = providers(messages=messages(3))
    instance = customer(tmp_path, certificate, pull(provider.port, name="isp", tls="verified"))
    status, said = command(instance, "pull", "isp", "--dry-run")
    assert (status, said) == (0, "isp: the login as ship works; ATRN would be said for all domains\n")
    assert len(provider.held) == 3
    status, said = command(instance, "pull", "--now")
    assert status == 0, said
    assert said.startswith("isp: all the mail has come; 3 messages, ")
    assert sorted(instance.numbers()) == [0, 1, 2]
    assert instance.queue() == []
    assert command(instance, "pull", "isp") == (0, "isp: there is no mail\n")
    assert not (instance.data / "control.sock").exists()


@pytest.mark.parametrize(
    ("terms", "settings", "status", "text"),
    [
        ({"password": "another"}, {}, os.EX_NOPERM, "test: denied: authentication with 127.0.0.1 has failed"),
        ({"answers": {"ATRN": "450 too soon"}}, {}, os.EX_TEMPFAIL, "temporary failure: 127.0.0.1 refuses ATRN: 450"),
        ({"answers": {"ATRN": "502 what?"}}, {}, os.EX_UNAVAILABLE, "unavailable: 127.0.0.1 refuses ATRN: 502 what?"),
        ({"tls": "none"}, {}, os.EX_UNAVAILABLE, "TLS is required, and 127.0.0.1 does not offer STARTTLS"),
        (
            {"close_at": "turned", "empty_turn": True},
            {},
            os.EX_TEMPFAIL,
            "temporary failure: the line broke (receiving)",
        ),
        ({"domains": ("foreign.test",)}, {"domains": [HOME]}, os.EX_TEMPFAIL, "refuses ATRN: 450"),
    ],
)
def test_statuses_for_scripts(tmp_path, certificate, providers, terms, settings, status, text):
    provider = providers(**terms)
    instance = customer(tmp_path, certificate, pull(provider.port, tls="verified", **settings))
    got, said = command(instance, "pull")
    assert (got, text in said) == (status, True), said
    assert len(said.splitlines()) == 1


def test_of_several_pulls_the_gravest_status_counts(tmp_path, certificate, providers):
    good, denying = providers(messages=messages(1)), providers(password="another")
    [closed] = free_ports(1)
    instance = customer(
        tmp_path,
        certificate,
        pull(good.port, name="good"),
        pull(denying.port, name="denying"),
        pull(closed, name="closed"),
    )
    status, said = command(instance, "pull", "--all")
    assert status == os.EX_NOPERM
    assert "good: all the mail has come" in said
    assert "closed: temporary failure: cannot connect to 127.0.0.1" in said
    assert command(instance, "pull", "closed")[0] == os.EX_TEMPFAIL


def test_a_certificate_that_is_not_trusted_keeps_the_credentials_home(tmp_path, providers):
    provider = providers()
    instance = home(tmp_path, pull(provider.port, tls="verified"))
    status, said = command(instance, "pull")
    assert status == os.EX_UNAVAILABLE
    assert "TLS with 127.0.0.1 has failed: the certificate" in said
    assert not any(line.startswith("AUTH") for line in provider.wait_for_turn().said())


def test_what_is_wrong_with_the_command_line_or_the_configuration(tmp_path, certificate):
    instance = customer(tmp_path, certificate, pull(1, name="isp"))
    assert command(instance, "pull", "what") == (
        os.EX_CONFIG,
        "Error: there is no pull 'what'; those in the configuration: isp\n",
    )
    assert command(instance, "pull", "isp", "--all")[0] == 2  # click's own
    assert command(instance, "pull", "--network-up", "--dry-run")[0] == 2
    assert command(instance, "pull", "--network-up")[0] == os.EX_UNAVAILABLE
    instance.pulls = [pull(1, name="isp", password_file="missing", password=None)]
    del instance.pulls[0]["password"]
    instance.configure()
    status, said = command(instance, "pull")
    assert status == os.EX_CONFIG
    assert "pull isp: password_file" in said
    instance.pulls = ()
    instance.configure()
    status, said = command(instance, "pull")
    assert (status, said) == (
        os.EX_CONFIG,
        "Error: the configuration has no pulls; add a [[pull]] table for each provider\n",
    )


def test_root_leaves_no_files_that_the_server_could_not_use(tmp_path, monkeypatch):
    if os.geteuid() == 0:
        os.chown(tmp_path, 65534, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    settings = Settings(data_directory=tmp_path)
    with pytest.raises(Failed, match="run this as the user who serves") as caught:
        expect_owner(settings)
    assert caught.value.exit_code == os.EX_NOPERM
    expect_owner(Settings(data_directory=tmp_path / "missing"))


def test_a_server_without_its_socket_keeps_the_queue_to_itself(tmp_path, certificate):
    instance = customer(tmp_path, certificate, pull(1, **NEVER))
    with instance:
        (instance.data / "control.sock").unlink()
        status, said = command(instance, "pull")
        assert status == os.EX_UNAVAILABLE
        assert len(said.splitlines()) == 1, said
    instance.check_log()


def test_a_server_that_has_the_queue_and_cannot_be_talked_to_yet_is_waited_for(tmp_path, certificate, providers):
    provider = providers(messages=messages(1))
    instance = customer(tmp_path, certificate, pull(provider.port, name="isp", **NEVER))
    with instance:
        control = instance.data / "control.sock"
        control.rename(instance.data / "later.sock")
        with subprocess.Popen(
            [*COMMAND, "--config", instance.configuration, "pull"],
            stdout=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
        ) as running:
            time.sleep(2.5)  # it has found nobody, and waits for the queue
            (instance.data / "later.sock").rename(control)
            said, _ = running.communicate(timeout=30)
        assert (running.returncode, said[:26]) == (0, b"isp: all the mail has come")
    instance.check_log()


def test_a_server_tells_at_its_start_what_it_will_refuse(tmp_path, certificate):
    instance = customer(tmp_path, certificate, pull(1, name="isp", domains=[HOME, "new.test"], **NEVER))
    with instance:
        wait_until(lambda: "pull isp: new.test is asked for, and neither local nor routed" in instance.log())
    assert f"pull isp: {HOME} is asked for" not in instance.log()
    instance.check_log()


def test_mail_for_a_domain_that_is_not_here_stays_there_and_is_told(tmp_path, certificate, providers):
    provider = providers(messages=[Message("x@away.test", ["bob@new.test"], content(1))], domains=("new.test",))
    instance = customer(tmp_path, certificate, pull(provider.port, name="isp"))
    status, said = command(instance, "pull")
    assert status == os.EX_UNAVAILABLE
    assert said.startswith("isp: refused: we have refused ")
    assert "; new.test is not ours here: add it by `mailsuite domain add new.test`, or give it a [[route]]" in said
    assert [refusal[:3] for _, refusal in provider.wait_for_turn().refused] == ["450"]
    assert len(provider.held) == 1
    assert command(instance, "domain", "add", "new.test")[0] == 0
    assert command(instance, "user", "add", "bob@new.test", "--generate")[0] == 0
    status, said = command(instance, "pull")
    assert (status, said[:26]) == (0, "isp: all the mail has come")


def test_an_interrupt_of_a_pull_through_the_server_is_no_failure_of_it(tmp_path, certificate):
    with socket.create_server((LOOPBACK, 0)) as silent:  # it never greets
        silent.settimeout(20)
        instance = customer(tmp_path, certificate, pull(silent.getsockname()[1], name="isp", **NEVER))
        with instance:
            with subprocess.Popen(
                [*COMMAND, "--config", instance.configuration, "pull"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ENVIRONMENT},
            ) as running:
                connection, _ = silent.accept()
                running.send_signal(signal.SIGINT)
                said, _ = running.communicate(timeout=20)
            connection.close()
        assert (running.returncode, said) == (130, b"")
        instance.check_log()


@pytest.mark.parametrize("arguments", [("pull",), ("etrn", LOOPBACK, "a.test"), ("network-up",)])
@pytest.mark.parametrize("wrong", ["hostname = ", 'hostname = "two words"', None])
def test_what_is_wrong_with_the_configuration_has_its_own_status(tmp_path, arguments, wrong):
    file = tmp_path / "m.toml"
    if wrong is not None:
        file.write_text(wrong)
    done = mailsuite("--config", file, *arguments)
    assert done.returncode == os.EX_CONFIG
    assert done.stdout.startswith(f"Error: {file}: ")
    assert len(done.stdout.splitlines()) == 1


def test_a_bad_time_is_told_in_one_sentence(tmp_path, certificate):
    instance = customer(tmp_path, certificate, pull(1, times=["30 6 * * 1-5", "30 25 * * *"]))
    status, said = command(instance, "pull")
    assert status == os.EX_CONFIG
    assert said == (
        f"Error: {instance.configuration}: pull[0].times[1] = '30 25 * * *': hour '25': it goes from 0 to 23.\n"
    )


# --------------------------------------------------------------------------------- through a running server


def test_a_running_server_does_it(tmp_path, certificate, providers):
    provider = providers(messages=messages(2))
    instance = customer(tmp_path, certificate, pull(provider.port, name="isp", **NEVER))
    status, said = command(instance, "network-up")
    assert status == os.EX_UNAVAILABLE
    assert said == f"Error: no server is running over {instance.data}; start it, or name its configuration\n"
    with instance:
        status, said = command(instance, "pull", "isp")
        assert status == 0, said
        assert said.startswith("isp: all the mail has come; 2 messages, ")
        instance.wait_for(count=2)
        assert "pull isp: all the mail has come; 2 messages" in instance.log()
        provider.hold(*messages(3)[2:])
        assert command(instance, "network-up") == (0, "pulls begun: isp\n")
        instance.wait_for(count=3)
        provider.answers["ATRN"] = "530 who are you?"
        status, said = command(instance, "pull")
        assert (status, said) == (
            os.EX_NOPERM,
            "isp: denied: 127.0.0.1 refuses ATRN: 530 who are you?\n",
        )
        # The server still has the configuration of its start.
        instance.pulls = [*instance.pulls, pull(1, name="new")]
        instance.configure()
        status, said = command(instance, "pull", "new")
        assert status == os.EX_CONFIG
        assert "the running server has no pull 'new'; those it has: isp; restart it" in said
    instance.check_log()
    assert not (instance.data / "control.sock").exists()


def test_a_server_that_was_killed_leaves_a_socket_that_hinders_nobody(tmp_path, certificate, providers):
    provider = providers(messages=messages(1))
    instance = customer(tmp_path, certificate, pull(provider.port, name="isp", **NEVER))
    instance.start()
    instance.kill()
    assert (instance.data / "control.sock").exists()
    status, said = command(instance, "pull")
    assert (status, said.startswith("isp: all the mail has come")) == (0, True), said
    with instance:
        assert command(instance, "pull") == (0, "isp: there is no mail\n")
    instance.check_log()


def test_one_window_does_both_directions(tmp_path, certificate, providers):
    provider = providers(messages=messages(1))
    smarthost = Instance(tmp_path / "smarthost", "far.test", users=("bob",))
    instance = Instance(
        tmp_path / "home",
        HOME,
        settings={"relay.ca_file": str(certificate.chain), "receive.trust_loopback": True, "retry.first": 3600},
        routes=[{"domain": "far.test", "next_hop": f"{LOOPBACK}:{smarthost.smtp_port}"}],
        pulls=[pull(provider.port, name="isp", push="before", **NEVER)],
    )
    with instance:
        with instance.client() as client:
            client.sendmail(f"alice@{HOME}", ["bob@far.test"], content(7))
        wait_until(lambda: [attempts for _, attempts, _ in instance.queue()] == [1], why=instance.log)
        with smarthost:
            status, said = command(instance, "pull")
            assert (status, said.startswith("isp: all the mail has come; 1 message")) == (0, True), said
            # The command waits for both.
            assert "pull isp: 1 message pushed to 127.0.0.1" in instance.log()
            assert "bob@far.test" not in {address for address, _, _ in instance.queue()}
            smarthost.wait_for("bob")
        instance.wait_for(count=1)
    instance.check_log()


def test_progress_in_words():
    assert in_words(PullProgress(PullStage.AUTH), 3.0) == "auth"
    assert in_words(PullProgress(PullStage.RECEIVING, 1, 2_000_000), 4.0) == "1 message, 2.0 MB, 500.0 kB/s"
    assert in_words(PullProgress(PullStage.RECEIVING, 0, 10), 0.0) == "0 messages, 10 bytes, 100 bytes/s"


# ------------------------------------------------------------------------------------------------- ETRN


@pytest.fixture
def etrn_server() -> Iterator[Callable[[dict[str, str]], int]]:
    """Start a server that answers ETRN by a table; gives its port."""
    listener = socket.create_server((LOOPBACK, 0))
    transcript: list[str] = []
    threads: list[threading.Thread] = []

    def serve(answers: dict[str, str]) -> None:
        with suppress(OSError, LineLost):
            connection, _ = listener.accept()
            connection.settimeout(10)
            line = Line(connection, "S", "C", transcript)
            line.write("220 hi")
            while (said := line.read().decode()) != "QUIT":
                line.write(*(["250-hi", "250 ETRN"] if said.startswith("EHLO") else [answers[said[5:]]]))
            line.write("221 bye")
            line.close()

    def start(answers: dict[str, str]) -> int:
        threads.append(threading.Thread(target=serve, args=(answers,), daemon=True))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield start
    listener.close()
    for thread in threads:
        thread.join(10)


def test_etrn_prints_each_answer(tmp_path, certificate, etrn_server):
    instance = customer(tmp_path, certificate)
    port = etrn_server({"a.test": "253 OK, 14 pending messages for node a.test started", "@b.test": "251 OK, none"})
    assert command(instance, "etrn", f"{LOOPBACK}:{port}", "a.test", "@b.test") == (
        0,
        "a.test: 253 OK, 14 pending messages for node a.test started\n@b.test: 251 OK, none\n",
    )
    etrn_server({"a.test": "250 OK", "#night": "459 Node #night not allowed: who?"})
    assert command(instance, "etrn", f"{LOOPBACK}:{port}", "a.test", "#night") == (
        os.EX_NOPERM,
        "a.test: 250 OK\n#night: 459 Node #night not allowed: who?\n",
    )
    etrn_server({"a.test": "458 Unable to queue"})
    assert command(instance, "etrn", f"{LOOPBACK}:{port}", "a.test")[0] == os.EX_TEMPFAIL


def test_etrn_that_cannot_be_said(tmp_path, certificate, etrn_server):
    instance = customer(tmp_path, certificate)
    port = etrn_server({})
    status, said = command(instance, "etrn", f"{LOOPBACK}:{port}", "a.test", "--tls", "required")
    assert status == os.EX_UNAVAILABLE
    assert said == "unavailable: TLS is required, and 127.0.0.1 does not offer STARTTLS\n"
    for arguments in (
        ("mx.test:99999", "a.test"),
        (LOOPBACK, "two words"),
        (LOOPBACK, "a.test", "--password-stdin"),
        (LOOPBACK, "a.test", "--user", "ship", "--tls", "none"),
    ):
        assert command(instance, "etrn", *arguments)[0] == 2


def test_an_etrn_pull_asks_for_each_node(tmp_path, certificate, etrn_server):
    port = etrn_server({HOME: f"252 OK, pending messages for node {HOME} started"})
    table = {"name": "isp", "provider": f"{LOOPBACK}:{port}", "method": "etrn", "domains": [HOME], "tls": "none"}
    instance = customer(tmp_path, certificate, table)
    assert command(instance, "pull") == (0, "isp: the provider begins to send\n")

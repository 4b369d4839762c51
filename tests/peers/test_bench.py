"""The measurements: how results are made up from runs, and that a short run works against real peers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import load, report
from bench.scenarios import SCENARIOS, Run
from tests.peers import postfix, process, smtpstone
from tests.peers.smtpstone import SmtpSink

KEPT = SCENARIOS[0]


def test_a_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    ours = [Run(300, 200), Run(900, 300), Run(800, 100)]
    theirs = [Run(100, 100), Run(100, 100), Run(400, 100)]
    result = report.Result(KEPT, {"ours": ours, "theirs": theirs})
    ratios = result.ratios("ours", "theirs")
    assert ratios == (report.Spread(3.0, 2.0, 9.0), report.Spread(2.0, 1.0, 3.0))


def test_there_is_no_ratio_to_a_server_without_runs() -> None:
    result = report.Result(KEPT, {"ours": [Run(1, 1)], "theirs": []}, {"theirs": "it fell over"})
    assert result.ratios("ours", "theirs") is None
    assert result.missed("ours") == []
    assert "it fell over" in "\n".join(report.scenario_lines(result, "ours"))


def test_a_goal_that_the_median_misses_is_told() -> None:
    result = report.Result(KEPT, {"mailsuite": [Run(250, 250)], "postfix": [Run(100, 100)]})
    (sentence,) = result.missed("mailsuite")
    assert sentence.startswith("kept: accepted 2.50")


def test_scaling_leaves_every_session_something_to_send() -> None:
    assert KEPT.scaled(0.5).load.messages == KEPT.load.messages // 2
    assert KEPT.scaled(0.0001).load.messages == 2 * KEPT.load.sessions


@pytest.mark.parametrize("length", [0, 1, 2, 79, 80, 81, 82, 4096])
def test_our_own_load_has_the_length_asked_for(length: int) -> None:
    body = load.content(length).partition(b"\r\n\r\n")[2].removesuffix(b".\r\n")
    # A last line cannot be shorter than its CRLF.
    assert len(body) == length - (length % 80 == 1)


@pytest.mark.interop
@pytest.mark.parametrize("keep", [True, False])
def test_our_own_load_sends_what_smtp_source_would(keep: bool) -> None:
    if missing := smtpstone.why_missing():
        pytest.skip(missing)
    flags = ["--keep"] if keep else []
    with SmtpSink(capture=True) as sink:
        arguments = ["--messages", "5", "--sessions", "2", "--recipients", "3", *flags]
        sent = process.run([sys.executable, "-m", "bench.load", str(sink.port), *arguments], timeout=20.0)
        assert sent.returncode == 0, sent.stdout
        messages = sink.messages()
    assert len(messages) == 5
    assert all(message.count(b"X-Rcpt-Args") == 3 for message in messages)


@pytest.mark.interop
def test_our_own_load_tells_what_was_refused() -> None:
    if missing := smtpstone.why_missing():
        pytest.skip(missing)
    with SmtpSink("-f", "RCPT") as sink:
        refused = process.run([sys.executable, "-m", "bench.load", str(sink.port)], timeout=20.0)
    assert refused.returncode == 1
    assert "the server said b'500" in refused.stdout


@pytest.mark.interop
@pytest.mark.slow
def test_a_short_measurement_runs_against_postfix(tmp_path: Path) -> None:
    if missing := postfix.why_missing():
        pytest.skip(missing)
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "--subject", "twisted.mail", "--peers", "postfix"),
            *("--only", "kept,ten,memory", "--messages", "40", "--rounds", "1", "--connections", "20"),
            *("--json", figures),
        ],
        capture_output=True,
        text=True,
        timeout=120.0,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kept, ten = json.loads(figures.read_text())["scenarios"]
    assert kept["ratios"]["postfix"]["accepted"]["median"] > 0
    assert ten["rounds"]["postfix"][0]["delivered"] > 0
    assert "twisted.mail / postfix" in done.stdout

"""``lightning serve`` in a separate process: it serves a checkpoint, and ends on a signal."""

import signal
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from actionprior.checkpoints.folder import write_folder
from actionprior.cli import main
from actionprior.errors import missing_extra
from actionprior.policy import Policy
from tests.helpers.policies import limited, observation, tiny_network
from tests.helpers.robots import delta_arm, position_arm
from tests.helpers.serving_client import Client
from tests.helpers.serving_process import served

ARM = delta_arm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export a policy of two robots."""
    path = tmp_path_factory.mktemp("exported")
    network = tiny_network([position_arm(), ARM])
    write_folder(network, {"actionprior": {"embodiment": "panda"}}, path)
    return path


def test_it_serves_an_exported_folder_and_ends_on_sigterm(folder: Path) -> None:
    policy = Policy(tiny_network([position_arm(), ARM]), "panda")
    with served(folder) as server:
        assert server.said.startswith("serving 'panda' on ws://127.0.0.1:")
        assert "12 actions per chunk" in server.said
        client = Client(server.host, server.port)
        for step in range(2):
            expected = policy.predict_chunk(observation(ARM, step))
            np.testing.assert_allclose(client.actions(observation(ARM, step)), expected, atol=1e-6)
        with pytest.raises(OSError, match="refused"):  # only this machine's loopback
            socket.create_connection(("127.0.0.2", server.port))
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed, match=r"1001.*the server stops"):
            client.socket.recv(timeout=30)
        assert server.process.wait(30) == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == "stopped\n"


def test_it_serves_on_when_nobody_reads_its_output(folder: Path, tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as errors, served(folder, stderr=errors) as server:
        assert server.process.stdout is not None
        server.process.stdout.close()  # as `| head -1` does
        client = Client(server.host, server.port)
        assert client.actions(observation(ARM)).shape == (12, 8)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    assert (tmp_path / "stderr").read_text() == ""


@pytest.mark.slow
def test_its_options_reach_the_policy(folder: Path) -> None:
    policy = Policy(tiny_network([position_arm(), ARM]), "kuka", integration_steps=3)
    expected = policy.predict_chunk(observation(position_arm()))
    words = "--embodiment=kuka", "--integration_steps=3", "--threads=1", "--max_sessions=1"
    with served(folder, *words) as server:
        client = Client(server.host, server.port)
        assert client.metadata["robot"] == "kuka"
        np.testing.assert_allclose(client.actions(observation(position_arm())), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "mode", "bound"),
    [
        ((), "clip", 0.02),
        (("--guard=warn",), "warn", np.inf),
        (("--guard_margin=0",), "clip", 0.01),
    ],
)
def test_a_folder_says_how_to_guard_unless_an_option_does(
    tmp_path: Path, words: tuple[str, ...], mode: str, bound: float
) -> None:
    acting = {"embodiment": "panda", "guard": "clip", "guard_margin": 0.5}
    write_folder(limited(tiny_network(), 0.01), {"actionprior": acting}, tmp_path)
    with served(tmp_path, *words) as server:
        client = Client(server.host, server.port)
        answer = client.infer(observation(ARM))
        assert client.metadata["guard"] == mode
        assert answer["guard"]["limit"] == 12
        assert np.isclose(np.abs(answer["actions"]).max(), bound, atol=1e-4) == (mode == "clip")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ckpt_path=nowhere.ckpt"], "nowhere.ckpt"),
        (["--embodiment=ur5"], "no embodiment 'ur5'"),
        (["--guard=clip"], "guard is 'clip', but the policy's file records no limits of 'panda'"),
        (["--guard_margin=-1"], "guard_margin is -1.0; expected a number from 0 on"),
        (["--max_rate=0"], "max_rate is 0.0, expected a number above 0"),
        (["--host=198.51.100.1"], "cannot listen on 198.51.100.1:8000: "),
    ],
)
def test_bad_options_end_in_one_sentence(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", f"--ckpt_path={folder}", *words])
    assert ended.value.code == 2
    said, errors = capsys.readouterr()
    assert message in errors
    warned = "is beyond this machine: everybody who reaches it can use the policy" in said
    assert warned == ("--host=198.51.100.1" in words)
    assert errors.count("\n") == 1


def test_a_missing_library_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("actionprior.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(SystemExit):
        main(["serve", f"--ckpt_path={folder}"])
    expected = f"error: {missing_extra('msgpack', 'serve')}\n"
    assert capsys.readouterr().err == expected

"""Tokens, requests of web pages, half-open handshakes, and a policy that cannot answer."""

import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from actionprior.errors import UserError
from actionprior.policy import Policy
from actionprior.serving import PolicyServer, connection
from actionprior.serving.access import asked_directly, is_loopback, read_token
from tests.helpers.policies import observation, tiny_network
from tests.helpers.robots import delta_arm
from tests.helpers.serving_client import Client, serving

TOKEN = "0123456789abcdef"


KEY = f"Api-Key {TOKEN}"


def ask(server: PolicyServer, path: str, **headers: str) -> tuple[int, str]:
    client = HTTPConnection(server.host, server.port, timeout=10)
    client.request("GET", path, headers={name.replace("_", "-"): v for name, v in headers.items()})
    answer = client.getresponse()
    return answer.status, answer.read().decode()


@pytest.fixture(scope="module")
def server() -> Iterator[PolicyServer]:
    with serving(Policy(tiny_network()), token=TOKEN, message_timeout=5) as server:
        yield server


def test_a_session_needs_the_token(server: PolicyServer) -> None:
    url = f"ws://{server.host}:{server.port}"
    for sent in (None, "", TOKEN, f"Api-Key {TOKEN[:-1]}", f"Api-Key {TOKEN}x", "Api-Key \xe9"):
        headers = {} if sent is None else {"Authorization": sent}
        with pytest.raises(InvalidStatus, match="401"):
            connect(url, additional_headers=headers)
    with connect(url, additional_headers={"Authorization": KEY}) as client:
        assert client.recv(timeout=10)
    assert ask(server, "/healthz") == (200, "OK\n")
    assert ask(server, "/metrics")[0] == 401
    assert "actionprior_requests_total" in ask(server, "/metrics", Authorization=KEY)[1]


def test_openpis_client_sends_the_token(server: PolicyServer) -> None:
    module = pytest.importorskip("openpi_client.websocket_client_policy")
    for key in (None, TOKEN[:-1]):
        with pytest.raises(InvalidStatus, match="401"):
            module.WebsocketClientPolicy(server.host, server.port, api_key=key)
    client = module.WebsocketClientPolicy(server.host, server.port, api_key=TOKEN)
    assert client.infer(observation(delta_arm()))["actions"].shape == (12, 8)
    client._ws.close()


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
def test_pages_and_other_names_are_refused(server: PolicyServer, path: str) -> None:
    assert ask(server, path, Authorization=KEY)[0] == 200
    assert ask(server, path, Authorization=KEY, Host=f"localhost:{server.port}")[0] == 200
    for headers in (
        {"Host": "stranger.example"},
        {"Origin": "http://stranger.example"},
        {"Sec_Fetch_Site": "same-origin"},
    ):
        assert ask(server, path, Authorization=KEY, **headers)[0] == 403


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/"])
@pytest.mark.parametrize("name", ["Host", "Authorization"])
def test_headers_that_stand_twice_are_refused(server: PolicyServer, path: str, name: str) -> None:
    client = HTTPConnection(server.host, server.port, timeout=10)
    client.putrequest("GET", path, skip_host=True)
    values = {"Host": "127.0.0.1", "Authorization": KEY}
    for header in ("Host", "Authorization", name):
        client.putheader(header, values[header])
    client.endheaders()
    status = client.getresponse().status
    if path == "/healthz" and name == "Authorization":
        assert status == 200  # it needs no token
    else:
        assert 400 <= status < 500


@pytest.mark.parametrize(
    ("host", "good"),
    [("127.0.0.1:8", True), ("[::1]:8", True), ("10.1.2.3", True), ("robot", True), ("", False)],
)
def test_hosts(host: str, good: bool) -> None:
    assert asked_directly({"Host": host}, "robot") == good


def test_only_loopback_stays_on_this_machine() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.3.2.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "robot")))


def test_tokens_are_read_from_files(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert read_token(path) == TOKEN
    for content in ("", "short", f"{TOKEN}\n{TOKEN}", "0123456789abcde é", "a b" * 10):
        path.write_text(content)
        with pytest.raises(UserError, match="holds no token"):
            read_token(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_token(tmp_path / "missing")


def test_half_open_handshakes_make_room(
    server: PolicyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HALF_OPEN_PER_ADDRESS", 4)
    monkeypatch.setattr(connection, "QUICK_HANDSHAKE", 0.2)
    held = []
    for _ in range(4):
        held.append(socket.create_connection((server.host, server.port)))
        held[-1].sendall(b"GET / HTTP/1.1\r\n")
    time.sleep(0.4)
    headers = {"Authorization": KEY}
    with connect(f"ws://{server.host}:{server.port}", additional_headers=headers) as client:
        assert client.recv(timeout=10)
    held[0].settimeout(5)
    with pytest.raises((ConnectionResetError, AssertionError)):
        assert held[0].recv(10)
    for half in held:
        half.close()


def test_other_addresses_get_in_while_some_hold_all_handshakes(
    server: PolicyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HALF_OPEN_PER_ADDRESS", 4)
    monkeypatch.setattr(connection, "HALF_OPEN", 8)
    monkeypatch.setattr(connection, "QUICK_HANDSHAKE", 60)
    held = []
    for source in ("127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3") * 3:
        address = (server.host, server.port)
        held.append(socket.create_connection(address, source_address=(source, 0)))
        held[-1].sendall(b"GET / HTTP/1.1\r\n")
    time.sleep(0.2)
    with connect(
        f"ws://{server.host}:{server.port}", additional_headers={"Authorization": KEY}
    ) as client:
        assert client.recv(timeout=10)
    for half in held:
        half.close()


def test_a_policy_that_hangs_is_reported_and_its_session_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy, go = Policy(tiny_network()), threading.Event()
    predict = policy.planner.predict
    monkeypatch.setattr(policy.planner, "predict", lambda r: go.wait(60) and predict(r))
    with serving(policy, answer_timeout=0.5) as server:
        assert ask(server, "/healthz")[0] == 200
        client = Client(server.host, server.port)
        with pytest.raises(ConnectionClosed, match="the policy did not answer"):
            client.infer(observation(delta_arm()))
        status, reason = ask(server, "/healthz")
        assert (status, reason) == (503, "the policy has not answered for 0.5 s\n")
        go.set()
        deadline = time.monotonic() + 20
        while ask(server, "/healthz")[0] != 200:
            assert time.monotonic() < deadline
        Client(server.host, server.port).actions(observation(delta_arm()))


def test_a_policy_that_fails_on_everything_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(tiny_network())

    def fail(request: object) -> None:
        raise RuntimeError("CUDA error: device-side assert")

    with serving(policy) as server:
        with monkeypatch.context() as patch:
            patch.setattr(policy.planner, "predict", fail)
            client = Client(server.host, server.port)
            for _ in range(3):
                with pytest.raises(RuntimeError, match="the policy failed"):
                    client.infer(observation(delta_arm()))
            assert ask(server, "/healthz") == (503, "the policy failed on its last 3 requests\n")
        client.infer(observation(delta_arm()))
        assert ask(server, "/healthz") == (200, "OK\n")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_planning_thread_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(tiny_network())
    with serving(policy) as server:
        client = Client(server.host, server.port)

        def die() -> None:
            raise SystemExit

        monkeypatch.setattr(server._batcher, "_next", die)
        client.infer(observation(delta_arm()))  # the thread already waits in the real method
        deadline = time.monotonic() + 10
        while ask(server, "/healthz")[0] != 503:
            assert time.monotonic() < deadline
        assert ask(server, "/healthz")[1] == "the planning thread has ended\n"
        with pytest.raises(RuntimeError, match="the policy failed"):
            client.infer(observation(delta_arm()))

"""The server over real sockets: openpi's client drives the policy, and nobody hurts another."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from actionprior.errors import UserError
from actionprior.policy import Policy
from actionprior.serving import PolicyServer
from tests.helpers.policies import limited, observation, tiny_network
from tests.helpers.robots import delta_arm, tool_arm
from tests.helpers.serving_client import Client, encode, get, metric, serving

ARM = delta_arm()


def openpi(host: str, port: int) -> Any:
    """openpi's own client. It requires an older NumPy than actionprior, so it is no extra."""
    if find_spec("openpi_client") is None:
        pytest.skip("openpi-client is not installed")
    module = import_module("openpi_client.websocket_client_policy")
    return module.WebsocketClientPolicy(host, port)


opened: list[Any] = []


def join(server: PolicyServer, client_of: Callable[..., Any] = Client) -> Any:
    """A client, closed when its test ends."""
    opened.append(client_of(server.host, server.port))
    return opened[-1]


CLIENTS = pytest.mark.parametrize("client_of", [Client, openpi])


@pytest.fixture(scope="module")
def server() -> Iterator[PolicyServer]:
    with serving(Policy(tiny_network(prefix_steps=3)), max_rate=1e5, message_timeout=2) as server:
        yield server


@pytest.fixture(scope="module")
def policy() -> Policy:
    """The same policy, in this process."""
    return Policy(tiny_network(prefix_steps=3))


@pytest.fixture(autouse=True)
def left(server: PolicyServer) -> Iterator[None]:
    """Every test ends with the server as it was, and a good client answered."""
    yield
    for client in opened:
        getattr(client, "socket", getattr(client, "_ws", None)).close()
    opened.clear()
    good = Client(server.host, server.port)
    assert good.actions(observation(ARM)).shape == (12, 8)
    good.socket.close()
    until(lambda: metric(server, "actionprior_sessions") == 0)


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- acting -------------------------------------------------------------------------------


@CLIENTS
def test_a_client_gets_the_policys_description(
    server: PolicyServer, client_of: Callable[..., Any]
) -> None:
    description = join(server, client_of).get_server_metadata()
    assert description["robot"] == "panda"
    assert description["state_key"] == "observation.state"
    assert description["cameras"] == ["observation.images.front"]
    assert (description["chunk_length"], len(description["action_features"])) == (12, 8)


@CLIENTS
def test_it_answers_as_the_policy_does(
    server: PolicyServer, policy: Policy, client_of: Callable[..., Any]
) -> None:
    client = join(server, client_of)
    policy.reset()
    for step in range(3):
        answer = client.infer(observation(ARM, step))
        assert answer["actions"].dtype == np.float32
        expected = policy.predict_chunk(observation(ARM, step))
        np.testing.assert_allclose(answer["actions"], expected, atol=1e-6)
        assert 0 < answer["policy_timing"]["infer_ms"] <= answer["server_timing"]["infer_ms"]
        assert ("prev_total_ms" in answer["server_timing"]) == (step > 0)


def test_openpis_broker_executes_the_chunks(server: PolicyServer, policy: Policy) -> None:
    client = join(server, openpi)
    broker = pytest.importorskip("openpi_client.action_chunk_broker").ActionChunkBroker(client, 5)
    policy.reset()
    for chunk in range(2):
        expected = policy.predict_chunk(observation(ARM, 5 * chunk))
        for step in range(5):
            done = broker.infer(observation(ARM, 5 * chunk + step))["actions"]
            np.testing.assert_allclose(done, expected[step], atol=1e-6)


def test_what_was_executed_is_seen_and_a_reset_forgets_it(
    server: PolicyServer, policy: Policy
) -> None:
    client = join(server)
    policy.reset(7)
    expected, past = [], {}
    for step in range(8):  # two chunks, of four actions each
        seen = observation(ARM, step)
        if step % 4 == 0:
            expected.append(policy.predict_chunk(seen))
            policy.memory.plans -= 1
            answered = client.actions(seen | past | {"reset": 7} if step == 0 else seen | past)
            np.testing.assert_allclose(answered, expected[-1], atol=1e-6)
            states, actions = [], []
        actions.append(policy.select_action(seen))
        states.append(seen["observation.state"])
        past = {"executed": np.stack(actions), "states": np.stack(states)}
        policy._queue.clear() if step % 4 == 3 else None
    again = client.actions(observation(ARM, 0) | {"reset": 7})
    np.testing.assert_allclose(again, expected[0], atol=1e-6)
    other = client.actions(observation(ARM, 0) | {"reset": 8})
    assert not np.allclose(other, expected[0], atol=1e-3)


def test_a_chunk_continues_the_actions_under_way(server: PolicyServer, policy: Policy) -> None:
    client = join(server)
    under_way = np.linspace(-0.2, 0.2, 24, dtype=np.float32).reshape(3, 8)
    policy.reset()
    sensed = policy.check_observation(observation(ARM))
    expected = policy.planner.predict(policy._request(sensed, under_way))[0]
    answered = client.actions(observation(ARM) | {"committed": under_way})
    np.testing.assert_allclose(answered, expected, atol=1e-6)
    np.testing.assert_allclose(answered[:3], under_way, atol=1e-5)


def test_concurrent_clients_get_the_chunks_of_single_clients(
    server: PolicyServer, policy: Policy
) -> None:
    steps = 5
    expected = {}
    for seed in range(12):
        policy.reset(seed)
        for step in range(steps):
            expected[seed, step] = policy.predict_chunk(observation(ARM, 100 * seed + step))
    answered = {}

    def drive(seed: int) -> None:
        client = join(server)
        for step in range(steps):
            reset = {"reset": seed} if step == 0 else {}
            seen = observation(ARM, 100 * seed + step) | reset
            answered[seed, step] = client.actions(seen)
        client.socket.close()

    threads = [threading.Thread(target=drive, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answered.keys() == expected.keys()
    for key, right in expected.items():
        np.testing.assert_allclose(answered[key], right, atol=1e-5)


def test_a_robot_without_a_camera_is_served() -> None:
    robot = tool_arm()
    policy = Policy(tiny_network([robot]))
    expected = policy.predict_chunk(observation(robot))
    policy.reset()
    with serving(policy) as server:
        client = join(server)
        np.testing.assert_allclose(client.actions(observation(robot)), expected, atol=1e-6)


# ---- refusing -----------------------------------------------------------------------------


@CLIENTS
def test_a_bad_observation_is_refused_and_the_session_continues(
    server: PolicyServer, policy: Policy, client_of: Callable[..., Any]
) -> None:
    client = join(server, client_of)
    before = metric(server, 'actionprior_errors_total{kind="observation"}')
    with pytest.raises(RuntimeError, match="'task'; robot 'panda' needs") as caught:
        client.infer({"observation.state": np.zeros(8)})
    assert "Traceback" not in str(caught.value)
    with pytest.raises(RuntimeError, match=r"is float32 of shape \(7,\), expected 8 numbers"):
        client.infer(observation(ARM) | {"observation.state": np.zeros(7, np.float32)})
    with pytest.raises(RuntimeError, match="not finite at joint_1"):
        client.infer(observation(ARM) | {"observation.state": np.full(8, 1e300)})
    with pytest.raises(RuntimeError, match="unknown keys 'observation/image'"):
        client.infer(observation(ARM) | {"observation/image": 0, "reset": 5})
    assert metric(server, 'actionprior_errors_total{kind="observation"}') == before + 4
    policy.reset()  # nothing of what was refused is remembered
    expected = policy.predict_chunk(observation(ARM))
    np.testing.assert_allclose(client.infer(observation(ARM))["actions"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        (b"\xc1garbage", "no msgpack within bounds"),
        ("text", "is text, expected binary"),
        (msgpack.packb({"a": encode(np.zeros(3)) | {b"dtype": "|O"}}), r"dtype '\|O'"),
        (b"\x91" * 100_000, "nested too deeply"),
    ],
)
def test_garbage_is_refused_and_the_session_continues(
    server: PolicyServer, message: bytes | str, reply: str
) -> None:
    client = join(server)
    before = metric(server, 'actionprior_errors_total{kind="malformed"}')
    with pytest.raises(RuntimeError, match=reply):
        client.ask(message)
    assert metric(server, 'actionprior_errors_total{kind="malformed"}') == before + 1
    assert client.actions(observation(ARM)).shape == (12, 8)


def test_a_failing_policy_sends_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy(tiny_network())

    def fail(request: Any) -> None:
        raise RuntimeError("secret of the machine")

    policy.planner.predict = fail  # type: ignore[method-assign]  # a spy
    with serving(policy) as server:
        client = join(server)
        with pytest.raises(RuntimeError, match="the policy failed on this observation") as caught:
            client.infer(observation(ARM))
        assert "secret" not in str(caught.value)
        assert metric(server, 'actionprior_errors_total{kind="internal"}') == 1
    assert "secret of the machine" in caplog.text


def test_of_a_message_that_fails_nothing_is_remembered() -> None:
    """So that a client may send it again."""
    policy, failing = Policy(tiny_network()), threading.Event()
    plain = policy.planner.predict

    def predict(request: Any) -> np.ndarray:
        if failing.is_set():
            raise RuntimeError("for a moment")
        return plain(request)

    policy.planner.predict = predict  # type: ignore[method-assign]  # a spy
    done = {"executed": np.zeros((2, 8)), "states": np.ones((2, 8))}
    with serving(policy) as server:
        steady, again = join(server), join(server)
        for client in (steady, again):
            client.actions(observation(ARM) | {"reset": 5})
        failing.set()
        for message in (observation(ARM, 1) | done, observation(ARM, 1) | {"reset": 9}):
            with pytest.raises(RuntimeError, match="the policy failed on this observation"):
                again.infer(message)
        failing.clear()
        expected, found = (c.actions(observation(ARM, 1) | done) for c in (steady, again))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_is_no_number_is_never_commanded() -> None:
    policy = Policy(tiny_network())
    policy.network.prior.decoder.requires_grad_(False)
    for weight in policy.network.prior.decoder.parameters():
        weight.fill_(float("nan"))
    with serving(policy) as server, pytest.raises(RuntimeError, match="not finite"):
        join(server).infer(observation(ARM))


def test_an_oversize_message_ends_its_session() -> None:
    with serving(Policy(tiny_network()), max_message_bytes=10_000) as server:
        good, bad = (join(server) for _ in range(2))
        with pytest.raises(ConnectionClosed, match="1009"):
            bad.ask(b"x" * 10_001)
        assert good.actions(observation(ARM)).shape == (12, 8)
        until(lambda: metric(server, 'actionprior_errors_total{kind="oversize"}') == 1)


def test_too_many_clients_are_refused_and_others_stay() -> None:
    with serving(Policy(tiny_network()), max_sessions=2) as server:
        first, second = (join(server) for _ in range(2))
        with pytest.raises(InvalidStatus, match="503"):
            join(server)
        assert metric(server, 'actionprior_errors_total{kind="full"}') == 1
        assert first.actions(observation(ARM)).shape == (12, 8)
        second.socket.close()
        until(lambda: metric(server, "actionprior_sessions") == 1)
        assert join(server).actions(observation(ARM)).shape == (12, 8)


def test_connections_that_say_nothing_are_cut_off() -> None:
    with serving(Policy(tiny_network()), max_sessions=1, message_timeout=0.5) as server:
        address = (server.host, server.port)
        mute = [socket.create_connection(address) for _ in range(60)]
        for one in mute:
            one.settimeout(20)
            until_closed(one)
        assert join(server).actions(observation(ARM)).shape == (12, 8)


def test_a_web_page_cannot_command_a_robot(server: PolicyServer) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://{server.host}:{server.port}", origin="http://example.com")  # type: ignore[arg-type]  # a type of websockets'


def raw(server: PolicyServer) -> socket.socket:
    """A client's socket after the handshake, to send what no client should."""
    one = socket.create_connection((server.host, server.port), timeout=20)
    one.sendall(
        b"GET / HTTP/1.1\r\nHost: robot\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert one.recv(12) == b"HTTP/1.1 101"
    return one


def until_closed(one: socket.socket) -> None:
    try:
        while one.recv(65536):
            pass
    except ConnectionResetError:
        pass


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\x82\xfe\x10\x00\0\0\0\0" + b"x" * 9, id="a frame that never ends"),
        pytest.param(b"\x02\x81\0\0\0\0x", id="a message that never ends"),
    ],
)
def test_a_slow_client_is_sent_away(frame: bytes) -> None:
    with serving(Policy(tiny_network()), message_timeout=0.5) as server:
        slow, good = raw(server), join(server)
        slow.sendall(frame)
        until_closed(slow)
        until(lambda: metric(server, 'actionprior_errors_total{kind="slow"}') == 1)
        assert good.actions(observation(ARM)).shape == (12, 8)


def test_a_client_that_says_nothing_is_sent_away() -> None:
    with serving(Policy(tiny_network()), idle_timeout=0.3) as server:
        client = join(server)
        assert client.actions(observation(ARM)).shape == (12, 8)
        with pytest.raises(ConnectionClosed, match=r"no message arrived within 0\.3 s"):
            client.socket.recv(timeout=20)
        assert metric(server, 'actionprior_errors_total{kind="idle"}') == 1


def test_a_client_that_takes_no_answer_is_cut_off() -> None:
    policy = Policy(tiny_network())
    policy.planner.predict = lambda request: np.zeros((len(request[1]), 50_000, 8), np.float32)  # type: ignore[method-assign]  # a spy
    message = msgpack.packb(observation(ARM), default=encode)
    with serving(policy, message_timeout=0.5) as server:
        deaf, good = raw(server), join(server)
        deaf.settimeout(0.1)
        for _ in range(50):  # answers of 1.6 MB, more than sockets hold
            try:
                deaf.sendall(b"\x82\xfe" + len(message).to_bytes(2) + bytes(4) + message)
            except OSError:
                break
        until(lambda: metric(server, 'actionprior_errors_total{kind="slow"}') == 1)
        assert good.actions(observation(ARM)).shape == (50_000, 8)
        deaf.close()


def test_a_flood_of_frames_is_cut_off(server: PolicyServer) -> None:
    with serving(Policy(tiny_network())) as server:
        good = join(server)
        for frame in (b"\x89\x80\0\0\0\0", b"\x02\x80\0\0\0\0" + 500 * b"\x00\x80\0\0\0\0"):
            flood = raw(server)
            flood.sendall(500 * frame)
            until_closed(flood)
        assert good.actions(observation(ARM)).shape == (12, 8)
        until(lambda: metric(server, 'actionprior_errors_total{kind="flood"}') == 2)


def test_a_message_in_many_parts_is_no_flood() -> None:
    message = msgpack.packb(observation(ARM), default=encode)
    with serving(Policy(tiny_network())) as server:
        client = join(server)
        for _ in range(60):  # of six parts each
            client.socket.send(message[k : k + 1024] for k in range(0, len(message), 1024))
            assert not isinstance(client.socket.recv(timeout=20), str)


def test_a_hasty_client_is_slowed_down() -> None:
    with serving(Policy(tiny_network()), max_rate=20) as server:
        client = join(server)
        start = time.monotonic()
        for _ in range(8):
            client.actions(observation(ARM))
        assert time.monotonic() - start > 5 / 20  # two at once, then twenty a second


# ---- living -------------------------------------------------------------------------------


def test_health_and_metrics(server: PolicyServer) -> None:
    assert get(server, "/healthz") == (200, "OK\n")
    before = metric(server, "actionprior_requests_total")
    client = join(server)
    client.actions(observation(ARM))
    client.actions(observation(ARM))
    assert metric(server, "actionprior_requests_total") == before + 2
    assert metric(server, "actionprior_sessions") == 1
    assert metric(server, 'actionprior_batch_size_bucket{le="1.0"}') >= 2
    assert metric(server, 'actionprior_request_seconds_bucket{le="+Inf"}') >= 1
    assert get(server, "/nothing")[0] == 426  # it is a websocket


def test_it_answers_what_is_asked_and_then_stops() -> None:
    policy = Policy(tiny_network())
    plain, asked = policy.planner.predict, threading.Event()

    def slow(request: Any) -> np.ndarray:
        asked.set()
        time.sleep(0.5)
        return plain(request)

    policy.planner.predict = slow  # type: ignore[method-assign]  # a spy
    answers = []
    with serving(policy) as server:
        busy, idle = (join(server) for _ in range(2))
        thread = threading.Thread(target=lambda: answers.append(busy.actions(observation(ARM))))
        thread.start()
        assert asked.wait(20)
    thread.join()
    assert answers[0].shape == (12, 8)
    for client in (busy, idle):
        with pytest.raises(ConnectionClosed, match=r"1001.*the server stops"):
            client.socket.recv(timeout=20)
    with pytest.raises(ConnectionRefusedError):
        join(server)


def test_bad_set_ups_are_refused(server: PolicyServer) -> None:
    with pytest.raises(UserError, match="max_sessions is 0, expected a number above 0"):
        PolicyServer(Policy(tiny_network()), max_sessions=0)
    for port in (70_000, -1):
        with pytest.raises(UserError, match=rf"port is {port}, expected 1 to 65535"):
            PolicyServer(Policy(tiny_network()), port=port)

    async def twice() -> None:
        async with PolicyServer(Policy(tiny_network()), port=server.port):
            pass

    with pytest.raises(UserError, match=rf"cannot listen on 127\.0\.0\.1:{server.port}: "):
        asyncio.run(twice())


# ---- guard --------------------------------------------------------------------------------


def test_actions_are_clipped_as_the_policy_does_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guarded = Policy(limited(tiny_network(), 0.01), guard="clip", guard_margin=0.0)
    seen, far = observation(ARM), observation(ARM, 1)
    far["observation.state"] = np.full(8, 9.0, dtype=np.float32)
    with pytest.warns(RuntimeWarning, match="beyond the recorded"):
        expected = guarded.predict_chunk(seen)
    with serving(guarded) as server:
        client, other = join(server), join(server)
        answer = client.infer(seen)
        np.testing.assert_allclose(answer["actions"], expected, atol=1e-6)
        assert np.abs(answer["actions"]).max() < 0.0101
        assert answer["guard"] == {"state": 0, "limit": 12, "step": 0}
        assert client.metadata["guard"] == "clip"
        assert client.infer(far)["guard"]["state"] == 1
        client.infer(far)
        assert other.infer(seen)["guard"] == answer["guard"]
        for kind, count in (("state", 2), ("limit", 48), ("step", 0)):
            assert metric(server, f'actionprior_guard_total{{kind="{kind}"}}') == count
    said = [record.getMessage() for record in caplog.records if "said once" in record.getMessage()]
    assert ["limit" in text for text in said] == [True, False, True]  # once per session and kind
    assert "9, far outside the training range -1 to 1" in said[1]


def test_a_policy_without_recorded_limits_compares_nothing(server: PolicyServer) -> None:
    client = join(server)
    assert client.metadata["guard"] == "off"
    assert "guard" not in client.infer(observation(ARM))

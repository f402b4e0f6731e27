"""Downloads within limits, from servers that are slow, broken, endless, or redirect."""

import itertools
import socket
import threading
from contextlib import contextmanager

import httpcore
import pytest

from dqecir.io import downloads, network
from dqecir.io.downloads import Downloader, DownloadError
from dqecir.io.network import CheckedNetwork, is_public
from tests.conftest import PATIENCE

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"


class Clock:
    """A clock that advances only while a caller waits."""

    def __init__(self):
        self.now, self.waited = 0.0, []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds


class Server:
    """A server that sends given raw bytes to the requests of one address, one response per connection."""

    def __init__(self, answers):
        self.answers = iter(answers)
        self.requests: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}/a.png"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        for answer in self.answers:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(PATIENCE)
                try:
                    request = b""
                    while b"\r\n\r\n" not in request and (part := connection.recv(4096)):
                        request += part
                    self.requests.append(request)
                    for piece in [answer] if isinstance(answer, bytes) else answer:
                        connection.sendall(piece)
                except OSError:  # the client has gone
                    pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # the thread waits no longer
        self.thread.join(PATIENCE)
        self.listener.close()


@pytest.fixture
def serve():
    servers = []

    def start(*answers) -> Server:
        servers.append(Server(answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@contextmanager
def downloader(clock=None, allow_private=True, most_bytes=1000):
    clock = clock or Clock()
    wait = clock.wait if isinstance(clock, Clock) else (lambda seconds: None)
    with Downloader("tests", most_bytes, allow_private, clock=clock, wait=wait) as made:
        yield made


def reason(address: str, **settings) -> str:
    with downloader(**settings) as made, pytest.raises(DownloadError) as error:
        made.get(address)
    return str(error.value)


def answer(head: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {head}\r\n\r\n".encode() + body


def test_a_file_is_fetched_plainly(serve, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody is there
    server = serve(OK)
    with downloader() as made:
        assert made.get(f"{server.address}?größe=1 2") == b"fine"
    request = server.requests[0].decode()
    assert request.startswith("GET /a.png?gr%C3%B6%C3%9Fe=1%202 HTTP/1.1\r\n")
    assert "Accept-Encoding: identity" in request


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ("404 Not Found", "the server answers 404"),
        ("410 Gone", "the server answers 410"),
        ("403 Forbidden", "the server answers 403"),
        ("204 No Content", "the server answers 204"),
        ("200 OK\r\nContent-Length: 1001", "it has more than 1,000 bytes"),
        ("200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1", "it comes compressed"),
        ("302 Found\r\nLocation: file:///etc/passwd", "file is not fetched"),
        ("302 Found\r\nLocation: //user:secret@127.0.0.1/", "does not send"),
        ("301 Moved\r\nLocation: http://[::bad", "it redirects to something that is not an address"),
        ("301 Moved\r\nLocation: ftp://127.0.0.1/a", "ftp is not fetched"),
        ("302 Found", "the server answers 302"),
    ],
)
def test_what_is_refused_is_refused_at_once(serve, head, why):
    server, clock = serve(answer(head)), Clock()
    assert why in reason(server.address, clock=clock)
    assert not clock.waited


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "ftp://a/b", "//a/b", "http:///a.png", "http://a:b/"]
)
def test_what_is_no_address_of_the_web_is_not_fetched(address):
    assert reason(address)


def test_what_may_pass_is_tried_again_after_a_while(serve):
    cut = answer("200 OK\r\nContent-Length: 9", b"half")
    server, clock = serve(answer("503 Busy"), cut, b"", OK), Clock()
    with downloader(clock) as made:
        assert made.get(server.address) == b"fine"
    assert clock.waited == [1, 2, 4]
    server, clock = serve(*[answer("500 Broken")] * 9), Clock()
    assert reason(server.address, clock=clock) == "the server answers 500 (tried 4 times)"
    assert len(server.requests) == 4


def test_a_server_says_how_long_to_wait(serve):
    server, clock = serve(answer("429 Slow down\r\nRetry-After: 30"), OK), Clock()
    with downloader(clock) as made:
        assert made.get(server.address) == b"fine"
    assert clock.waited == [30]
    past = "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"
    server, clock = serve(answer(f"503 Busy\r\n{past}"), OK), Clock()
    with downloader(clock) as made:
        assert made.get(server.address) == b"fine"
    assert clock.waited == [0, downloads.APART]
    server, clock = serve(answer("429 Slow down\r\nRetry-After: 86400")), Clock()
    assert reason(server.address, clock=clock) == "the server answers 429 and asks to wait 86,400 seconds"
    assert not clock.waited


def test_one_host_is_asked_at_a_polite_rate(serve):
    server, clock = serve(*[answer("200 OK\r\nConnection: close", b"fine")] * 3), Clock()
    with downloader(clock) as made:
        for _ in range(3):
            made.get(server.address)
    assert clock.waited == pytest.approx([0.1, 0.1])


def test_an_endless_body_ends_at_the_limit(serve):
    head = answer("200 OK\r\nConnection: close")
    server = serve(itertools.chain([head], itertools.repeat(b"x" * 400)))
    assert reason(server.address) == "it has more than 1,000 bytes"


@pytest.mark.parametrize("head", ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nX-"])
def test_a_body_or_a_head_that_trickles_ends_at_the_deadline(serve, head):
    ticks = itertools.count(step=10)
    server = serve(*[itertools.chain([head.encode()], itertools.repeat(b"x"))] * 4)
    assert "answer did not arrive in time (tried 4 times)" in reason(
        server.address, clock=lambda: next(ticks), most_bytes=10**9
    )


def test_a_refused_connection_names_the_host():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"http://127.0.0.1:{gone.getsockname()[1]}/"
    found = reason(address)
    assert found.startswith("the connection to 127.0.0.1 failed: ") and found.endswith(" (tried 4 times)")


def test_a_server_that_says_nothing_is_left(monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUTS", dict.fromkeys(downloads.TIMEOUTS, 0.05))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert reason(address) == "the whole answer did not arrive in time (tried 4 times)"


def test_redirects_are_followed_as_far_as_they_lead_somewhere(serve):
    server = serve(answer("307 There\r\nLocation: b.png"), OK)
    with downloader() as made:
        assert made.get(server.address) == b"fine"
    assert server.requests[1].startswith(b"GET /b.png ")
    server = serve(*[answer("301 Here\r\nLocation: /a.png")] * 20)
    assert reason(server.address) == "it redirects more than 5 times"
    assert len(server.requests) == 6


def test_private_addresses_are_refused_at_the_first_step_and_at_redirects(serve, monkeypatch):
    server = serve(OK)
    port = server.address.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"):
        assert "not an address of the public internet" in reason(
            f"http://{host}:{port}", allow_private=False
        ), host
    assert not server.requests
    monkeypatch.setattr(network, "is_public", lambda address: address == "127.0.0.1")
    server = serve(answer(f"302 Found\r\nLocation: http://127.0.0.2:{port}"))
    assert "127.0.0.2 is not an address of the public internet" in reason(server.address, allow_private=False)


PRIVATE = """
0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 192.0.2.1 192.168.1.1 198.18.0.1 224.0.0.1
240.0.0.1 255.255.255.255 :: ::1 ::ffff:10.0.0.1 ::7f00:1 64:ff9b::7f00:1 64:ff9b:1::1 2001:db8::1 fc00::1
2002:7f00:1:: 2001:0:53aa:64c:0:fbff:c0a8:101 fe80::1 fe80::1%lo fec0::1 ff02::1
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_of_the_public_internet(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_public_internet(address):
    assert is_public(address)


def test_a_connection_goes_to_the_address_that_was_checked(monkeypatch):
    """The name server is asked only once, although its second answer would differ; TLS uses the host's
    name.
    """
    resolved, connected, secured = [], [], []

    def resolve(host, port, **_):
        resolved.append(host)
        ips = ["10.0.0.1", "93.184.216.34"] if len(resolved) == 1 else ["127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]

    class Stream(httpcore.MockStream):
        def start_tls(self, ssl_context, server_hostname=None, timeout=None):
            secured.append(server_hostname)
            return self

    class Sockets(httpcore.SyncBackend):
        def connect_tcp(self, host, port, *_):
            connected.append((host, port))
            return Stream([OK])

    monkeypatch.setattr(network.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(network.httpcore, "SyncBackend", Sockets)
    with downloader(allow_private=False) as made:
        assert made.get("https://shop.example/a.png") == b"fine"
    assert (resolved, connected, secured) == (
        ["shop.example"],
        [("93.184.216.34", 443)],
        ["shop.example"],
    )


def test_a_name_without_a_host_is_said(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(network.socket, "getaddrinfo", unknown)
    assert "shop.example cannot be resolved" in reason("http://shop.example/a.png")
    with pytest.raises(httpcore.ConnectError):
        CheckedNetwork(False, Clock()).connect_tcp("shop.example", 80)

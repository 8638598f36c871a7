"""The composition root of ``lowtide serve`` and ``lowtide up``: here the parts become a server.

``serve`` runs the HTTP API and, while this server leads, the controller. ``up`` also keeps one
agent process per cluster alive (``scheduler.agents``). Ctrl-C or SIGTERM ends the server after
its present tick.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import structlog
import uvicorn

from checkpointing.errors import CheckpointError
from checkpointing.storage import Storage, open_storage
from cluster.inbox import Inbox
from cluster.prices import FeedPrices, FlatPrices, PriceSource
from jobs.errors import LowtideError
from jobs.events import WINDOWS_SUBJECT, WindowsSet
from jobs.store import JobStore
from jobs.store_open import open_store
from scheduler.agent_link import AgentLinkDriver
from scheduler.catalog import Catalog
from scheduler.clock import SystemClock
from scheduler.commands import Mailbox
from scheduler.controller import Controller
from scheduler.home import Home
from scheduler.ids import RandomIds
from scheduler.price_book import PriceBook
from scheduler.price_feed import FileFeed
from scheduler.server.app import create_app
from scheduler.server.context import Context
from scheduler.server.leadership import Leadership, Term
from scheduler.settings import Settings
from scheduler.window_files import parse_windows
from scheduler.windows import PriceWindow

_GRACE_S = 3
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a server on any is reached
_log = structlog.get_logger("lowtide.server")
_HORIZON_WALL_S = 2.0  # a plan of the whole queue that takes longer is given up


class PortInUseError(LowtideError):
    """Another process listens there already."""

    code = "port-in-use"


class AddressError(LowtideError):
    """The configured host and port cannot be listened on."""

    code = "address"


class StorageUnusableError(LowtideError):
    """The object storage cannot be reached, refuses us, or cannot be written."""

    code = "storage-unusable"
    http_status = 503


class Server:
    """One server process: API, leadership and store. ``run`` blocks until ``stop``."""

    def __init__(self, settings: Settings, *, home: Home) -> None:
        """Listen, and open store and storage.

        Raises:
            LowtideError: the port, the database, the storage or the home cannot be used.
        """
        home.prepare()
        self._settings, self._home = settings, home
        self._ids, self._clock = RandomIds(), SystemClock()
        self._token = home.token(self._ids)
        self._socket = listen(settings.host, port=settings.port)
        self.url = _url(self._socket)
        self._holder = f"{self.url} ({socket.gethostname()}, pid {os.getpid()})"
        try:
            self._storage_uri = settings.storage or home.storage
            storage = check_storage(self._storage_uri, probe=self._ids.new("probe"))
            self._store = open_store(settings.database or home.database_url)
        except BaseException:
            self._socket.close()
            raise
        self._link = AgentLinkDriver()
        self._context = self._build(storage)
        self._prices = _feed_prices(settings, self._context.stopping)
        self._http = self._uvicorn()
        self._forget_dead_server()
        if home.read_server() is None:
            self._announce()

    def run(self) -> None:
        """Serve until ``stop``. May raise what the controller crashed with."""
        leadership = self._context.leadership
        leadership.start()
        try:
            self._http.run(sockets=[self._socket])
        finally:
            self.stop()
            leadership.stop()
            self._link.close()
            self._store.close()
            self._socket.close()
            self._home.forget_server(self.url)
        if leadership.crash is not None:
            raise leadership.crash

    def stop(self) -> None:
        """Ask ``run`` to end. Safe from any thread and from a signal handler."""
        self._context.stopping.set()
        self._http.should_exit = True
        self._link.close()

    def _build(self, storage: Storage) -> Context:
        return Context(
            settings=self._settings,
            store=self._store,
            storage=storage,
            storage_uri=self._storage_uri,
            link=self._link,
            leadership=Leadership(
                leader=self._leader,
                new_term=self._new_term,
                on_lead=self._announce,
                on_crash=self.stop,
            ),
        )

    def _new_term(self) -> Term:
        inbox = Inbox()
        mailbox = Mailbox(inbox)
        controller = Controller(
            store=self._store,
            driver=self._link,
            inbox=inbox,
            mailbox=mailbox,
            clock=self._clock,
            ids=self._ids,
            catalog=_catalog(self._settings, self._prices, _windows(self._settings, self._store)),
            settings=self._settings.policy,
            holder=self._holder,
            horizon_wall_s=_HORIZON_WALL_S,
        )
        return Term(controller=controller, inbox=inbox, mailbox=mailbox)

    def _leader(self) -> str:
        url = str((self._home.read_server() or {}).get("url", ""))
        return "" if url == self.url else url  # servers of other homes are not known here

    def _announce(self) -> None:
        self._home.write_server(url=self.url, pid=os.getpid(), holder=self._holder)

    def _forget_dead_server(self) -> None:
        """Free the lease of a server of this home that was killed, instead of waiting it out."""
        before = self._home.read_server()
        if before is not None and self._home.is_dead(before):
            self._store.release_leadership(str(before.get("holder", "")))
            self._home.forget_server(str(before["url"]))

    def _uvicorn(self) -> uvicorn.Server:
        config = uvicorn.Config(
            create_app(self._context, token=self._token),
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        return _Uvicorn(config)


class _Uvicorn(uvicorn.Server):
    """Leaves the signals to us: uvicorn raises them again, which would skip our cleaning up."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def serve(settings: Settings, *, home: Home, on_ready: Callable[[str], None] | None = None) -> None:
    """Run a server until SIGINT or SIGTERM (``lowtide serve``).

    Args:
        settings: the configuration.
        home: the folder of this installation.
        on_ready: called with the URL once the server listens.

    Raises:
        LowtideError: it cannot start; cause and remedy say why.
        Exception: the controller crashed. The process should end with it, non-zero; started
            again it goes on where it was.
    """
    _log_to_stderr()
    server = Server(settings, home=home)
    with _stopped_by_signals(server.stop):
        if on_ready is not None:
            on_ready(server.url)
        server.run()


def up(
    settings: Settings,
    *,
    home: Home,
    down: bool = False,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Run a server and an agent for each cluster (``lowtide up``).

    At the end the agents are left alone, so that training goes on; the next ``up`` takes them
    over. With ``down`` they are ended too, and with them the local nodes and their training:
    jobs go on from their last checkpoint at the next ``up``.

    Raises:
        LowtideError, Exception: as ``serve``.
    """
    from scheduler.agents import Agents  # `serve` needs nothing of the agent's extra

    _log_to_stderr()
    server = Server(settings, home=home)
    names = [cluster.name for cluster in settings.clusters]
    agents = Agents(names, home=home, command=_agent_command(home))
    with _stopped_by_signals(server.stop):
        if on_ready is not None:
            on_ready(server.url)
        agents.start(server.url)
        try:
            server.run()
        finally:
            agents.stop(down=down)


def _feed_prices(settings: Settings, stopping: threading.Event) -> PriceSource:
    """Give the base prices: those of the configuration, or a feed that a thread keeps reading."""
    flavors, given = settings.flavors.values(), settings.price_feed
    if given is None:
        return FlatPrices(flavors)
    prices = FeedPrices(flavors, source=f"feed {given.file}", every_us=given.every * 1_000)
    feed = FileFeed(Path(given.file), prices=prices, every_s=given.every / 2_000)
    threading.Thread(target=feed.run, args=(stopping,), name="prices", daemon=True).start()
    return prices


def _windows(settings: Settings, store: JobStore) -> tuple[PriceWindow, ...]:
    """Give the windows that were applied last, or those of the configuration."""
    applied = [one.event for one in store.records(subject=WINDOWS_SUBJECT)]
    last = applied[-1] if applied else None
    if not isinstance(last, WindowsSet):
        return settings.windows
    try:
        source = "the windows applied last"
        return parse_windows(last.text, source=source, flavors=settings.flavors.values()).windows
    except LowtideError as error:  # the configuration has changed since: a flavor is gone, say
        _log.warning("applied windows do not fit any more; those of the file hold", why=error.cause)
        return settings.windows


def _catalog(
    settings: Settings, prices_of: PriceSource, windows: tuple[PriceWindow, ...]
) -> Catalog:
    flavors = settings.flavors
    prices = PriceBook(prices_of, flavors.values(), windows)
    return Catalog(
        flavors=flavors,
        prices=prices,
        windows=windows,
        budgets=tuple(budget.budget() for budget in settings.budgets),
        egress_nanos_per_gb=settings.egress_nanos_per_gb,
    )


def listen(host: str, *, port: int) -> socket.socket:
    """Bind a listening socket; port 0 takes a free one.

    Raises:
        PortInUseError: somebody listens there.
        AddressError: the address is not this machine's, or not allowed.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"Port {port} of {host} is in use.",
                remedy="Stop the process that has it (another `lowtide up`?), or set `port`.",
            ) from error
        raise AddressError(
            f"Cannot listen on {host}, port {port}: {error.strerror or error}.",
            remedy="Set `host` to an address of this machine and `port` above 1023.",
        ) from error


def check_storage(uri: str, *, probe: str) -> Storage:
    """Open a storage and prove that it can be written, read and deleted from.

    Raises:
        StorageUnusableError: it cannot; says what is wrong.
    """
    try:
        storage = open_storage(uri)
        storage.put(f"probes/{probe}", b"lowtide")
        storage.get(f"probes/{probe}")
        storage.delete(f"probes/{probe}")
    except CheckpointError as error:
        raise StorageUnusableError(error.cause, remedy=error.remedy) from error
    return storage


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    host = _ANY_HOST.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM call ``stop``. Only a main thread can; elsewhere do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, on_signal) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_ENDING = (signal.SIGINT, signal.SIGTERM)


def _agent_command(home: Home) -> Callable[[str, str], list[str]]:
    program = [sys.executable, "-m", "scheduler.agent_process"]
    return lambda cluster, url: [*program, cluster, url, str(home.folder)]


def _log_to_stderr() -> None:
    """One line each; tracebacks without the values of variables, tokens among them."""
    plain = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(
        processors=[*structlog.get_config()["processors"][:-1], plain],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )

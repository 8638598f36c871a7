"""``up``, ``serve``, ``agent``, ``demo``: the processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scheduler.cli.output import Json, needs, print_json

if TYPE_CHECKING:
    from scheduler.home import Home
    from scheduler.settings import Settings

Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Clusters, prices, windows; default: lowtide.yaml, else built in."
    ),
]
Host = Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")]
Port = Annotated[
    int | None, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65_535)
]


def up(
    config: Config = None,
    host: Host = None,
    port: Port = None,
    down: Annotated[
        bool, typer.Option("--down", help="At the end stop the agents and their nodes too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run everything on this machine: server, agents, local nodes.

    Ctrl-C stops the server; training goes on, and the next `lowtide up` takes it over.
    """
    with needs("all"):
        from scheduler import app

        settings, home = _configured(config, host=host, port=port)
        hint = "try: lowtide submit train.py, lowtide ls; Ctrl-C stops the server"
        app.up(settings, home=home, down=down, on_ready=_ready(as_json=as_json, hint=hint))


def serve(
    config: Config = None, host: Host = None, port: Port = None, as_json: Json = False
) -> None:
    """Run the server alone: the HTTP API and the scheduling loop.

    It may be killed at any moment; started again, it goes on where it was.
    """
    with needs("server"):
        from scheduler import app

        settings, home = _configured(config, host=host, port=port)
        hint = "agents connect with: lowtide agent --cluster NAME"
        app.serve(settings, home=home, on_ready=_ready(as_json=as_json, hint=hint))


def agent(
    cluster: Annotated[
        str, typer.Option(metavar="NAME", help="Which cluster of the server's configuration.")
    ],
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Default: LOWTIDE_SERVER, else this machine's own."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the agent of one Ray cluster; it starts the training.

    It connects outward only, and keeps training alive while the server is away.
    """
    with needs("agent"):
        from cluster.agent import run_agent
        from jobs.transport import find_server
        from scheduler.agent_process import home_of
        from scheduler.home import Home
        from scheduler.settings import home_folder

        address = find_server(server=server)
        if as_json:
            print_json({"cluster": cluster, "server": address.url, "pid": os.getpid()})
        run_agent(
            cluster=cluster,
            server=address.url,
            token=address.token,
            home=home_of(Home(home_folder()), cluster),
        )


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave its folder in place to look around.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show the whole path here: training, evictions, the ledger.

    It takes about three minutes and needs no GPU and no cloud account.
    """
    with needs("demo"):
        from scheduler.demo import run_demo

        return run_demo(json_output=as_json, keep=keep)


def _configured(
    config: Path | None, *, host: str | None, port: int | None
) -> tuple[Settings, Home]:
    from scheduler.home import Home
    from scheduler.settings import CONFIG_NAME, default_settings, home_folder, load_settings

    home = Home(home_folder())
    usual = (Path(CONFIG_NAME), home.folder / CONFIG_NAME)
    file = config or next((path for path in usual if path.is_file()), None)
    settings = load_settings(file) if file else default_settings()
    wishes = {"host": host, "port": port}
    given = {name: value for name, value in wishes.items() if value is not None}
    return settings.model_copy(update=given), home


def _ready(*, as_json: bool, hint: str) -> Callable[[str], None]:
    def say(url: str) -> None:
        if as_json:
            print_json({"url": url, "pid": os.getpid()})
        else:
            print(f"Lowtide listens at {url}\n  {hint}", flush=True)

    return say

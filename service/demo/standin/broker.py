"""The broker's stand-in: EMQX 5.8.9 as recorded, as far as this project needs it.

MQTT 3.1.1 and 5 over TCP and WebSocket, rules with HTTP actions and republishing, and the REST
calls that the service and its tools make. For the demo and the tests; it keeps nothing on disk.
`python -m service.demo.standin.broker --help` runs it alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import uvicorn

from service.demo.standin.access import ApiKey
from service.demo.standin.mqtt_broker.core import MqttBroker
from service.demo.standin.mqtt_broker.listeners import port_error
from service.demo.standin.published import Message
from service.demo.standin.refusal import Invalid
from service.demo.standin.resources import Refused, Resources
from service.demo.standin.rest import RestApi

VERSION = "5.8.9"


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the loop, and says when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class StandIn:
    """The whole broker. Ports of 0 are chosen by the system and known after `start`.

    For tests, once started: `mqtt.published` holds the last messages with their properties,
    `resources` the connectors, actions and rules with their counters.
    """

    def __init__(
        self,
        mqtt_port: int = 0,
        ws_port: int = 0,
        rest_port: int = 0,
        host: str = "127.0.0.1",
        api_keys: Mapping[str, str | ApiKey] | None = None,
        version: str = VERSION,
    ) -> None:
        """`version` 6.2.2 plays that one, as far as it differs for this project."""
        self.host = host
        self.mqtt_port = mqtt_port
        self.ws_port = ws_port
        self.rest_port = rest_port
        self.version = version
        self._api_keys = {
            name: ApiKey(key) if isinstance(key, str) else key
            for name, key in ({"key": "secret"} if api_keys is None else api_keys).items()
        }
        self._serving: asyncio.Task[None] | None = None

    @property
    def rest_url(self) -> str:
        """What EMQX_URL has to be, without a path."""
        return f"http://{self.host}:{self.rest_port}"

    async def start(self) -> None:
        """Opens all three ports. Raises OSError that names a port that is taken."""
        listener = _listen(self.host, self.rest_port)
        try:
            newer = int(self.version.partition(".")[0]) >= 6
            self.resources = Resources(self.publish, newer=newer)
            self.namespaces = {
                key.namespace: Resources(self.publish, newer=newer, namespace=key.namespace)
                for key in self._api_keys.values()
                if key.namespace is not None
            }
            self.mqtt = MqttBroker(
                self.host, self.mqtt_port, self.ws_port, self._run_rules, self.version
            )
            await self.mqtt.start()
        except BaseException:
            listener.close()
            raise
        self.mqtt_port = self.mqtt.port("default")
        self.ws_port = self.mqtt.port("ws")
        self.rest_port = listener.getsockname()[1]
        app = RestApi(self.mqtt, self.resources, self._api_keys, self.namespaces).app
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        await self._server.ready.wait()

    async def stop(self) -> None:
        """Closes everything; messages still buffered are lost, as with EMQX."""
        if self._serving is None:
            return
        self._server.should_exit = True
        await self._serving
        self._serving = None
        await self.mqtt.shutdown()
        for resources in (self.resources, *self.namespaces.values()):
            await resources.stop()

    async def load(self, hocon_text: str) -> None:
        """The same as PUT /configs?mode=merge. Raises Refused or Invalid."""
        async with self.resources.changing:
            await self.resources.load(hocon_text)

    async def merge(self, tree: Mapping[str, object]) -> None:
        """The same from the tree of such a text."""
        async with self.resources.changing:
            await self.resources.merge(tree)

    def _run_rules(self, message: Message) -> None:
        """The global ones, and those of a client's namespace, which is its user name here."""
        self.resources.engine.handle(message)
        if message.username is not None and message.username in self.namespaces:
            self.namespaces[message.username].engine.handle(message)

    def publish(self, message: Message) -> int:
        """Runs rules and delivers; the number of sessions reached."""
        return self.mqtt.publish(message)

    async def __aenter__(self) -> StandIn:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise port_error(exc, port, "REST") from None
    listener.setblocking(False)
    return listener


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m service.demo.standin.broker", description=__doc__
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--mqtt-port", type=int, default=1883)
    parser.add_argument("--ws-port", type=int, default=8083)
    parser.add_argument("--rest-port", type=int, default=18083)
    parser.add_argument("--config", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--api-key", default="key")
    parser.add_argument("--api-secret", default="secret")
    parser.add_argument("--emqx", default=VERSION, metavar="VERSION", help="which one to play")
    parser.add_argument("--port-file", type=Path, help="gets the ports: mqtt ws rest")
    return parser.parse_args()


async def _main(args: argparse.Namespace) -> None:
    keys = {args.api_key: args.api_secret}
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    ports = args.mqtt_port, args.ws_port, args.rest_port
    async with StandIn(*ports, args.host, keys, args.emqx) as broker:
        for path in args.config:
            await broker.load(path.read_text())
        got = f"{broker.mqtt_port} {broker.ws_port} {broker.rest_port}\n"
        if args.port_file:
            scratch = args.port_file.with_suffix(".part")
            scratch.write_text(got)
            scratch.replace(args.port_file)  # whoever waits for it never sees half of it
        print(f"stand-in ready: mqtt, ws, rest on {got}", end="", flush=True)
        await stopped.wait()


if __name__ == "__main__":
    try:
        asyncio.run(_main(_arguments()))
    except (OSError, Refused, Invalid) as exc:
        sys.exit(str(exc))

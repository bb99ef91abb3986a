"""How much of what a run does."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Plan:
    """Times in seconds. A run goes on until it had both its requests and its kills."""

    database: str
    replicas: int
    front: bool = False  # HAProxy stands between EMQX and the service
    restarts_in_order: int = 0  # SIGTERMs
    requests: int = 400
    kills: int = 5
    seed: int = 1
    lease: float = 3.0
    rate: float = 30.0  # messages a second
    conversations: int = 25
    kill_pause: tuple[float, float] = (0.3, 2.0)  # between a start and its end
    stops: int = 1  # SIGSTOPs for longer than a lease; half of them end in a kill
    model_rate: float = 0.12  # of its calls fail
    model_pause: float = 0.2
    model_slow: float = 1.5
    hiccups: float = 0.02  # of the broker's answers are lost
    outages: tuple[float, ...] = (3.0, 2.0)  # of the broker
    disk_full: tuple[float, ...] = (2.0,)
    jumps: tuple[float, ...] = (1.0,) * 6  # how long a clock stays wrong
    resets: float = 1.0  # between resets of a webhook connection
    restarts: tuple[float, float] = (3.0, 6.0)  # between restarts of PostgreSQL
    limit: float = 150.0  # for the trouble
    patience: float = 120.0  # for the peace after it; `stuck` is what notices a standstill
    stuck: float = 8.0  # without a publish in peace, while requests are open

    @property
    def name(self) -> str:
        what = ", behind HAProxy" if self.front else ""
        return self.database + what + (", orderly restarts" if self.restarts_in_order else "")

    @property
    def loses_in_emqx(self) -> bool:
        """EMQX gives up a message when a connection breaks under it: a kill without a front."""
        return not self.front and self.kills > 0

    @property
    def sqlite(self) -> bool:
        return self.database == "sqlite"


def short(database: str, replicas: int, seed: int = 1) -> Plan:
    return Plan(database, replicas, seed=seed)


def restarts(database: str, replicas: int, seed: int = 1) -> Plan:
    """Orderly restarts under load, nothing else: EMQX's connections are all that may suffer."""
    return replace(
        short(database, replicas, seed),
        requests=900,
        kills=0,
        stops=0,
        restarts_in_order=6,
        rate=60.0,
        model_rate=0.0,
        hiccups=0.0,
        outages=(),
        disk_full=(),
        jumps=(),
        resets=0.0,
        restarts=(0.0, 0.0),
    )


def behind_front(database: str, replicas: int, seed: int = 1) -> Plan:
    """Kills and orderly restarts behind HAProxy."""
    plan = restarts(database, replicas, seed)
    return replace(plan, front=True, kills=6, restarts_in_order=3)


def long(database: str, replicas: int, seed: int = 1) -> Plan:
    """At least 20,000 requests and 100 kills."""
    return replace(
        short(database, replicas, seed),
        requests=20_000,
        kills=100,
        stops=15,
        lease=4.0,
        rate=32.0,
        conversations=300,
        kill_pause=(0.5, 6.0),
        model_pause=0.4,
        outages=(60.0, 12.0, 12.0, 12.0, 12.0, 8.0, 8.0, 8.0, 5.0, 5.0),
        disk_full=(10.0,) * 6,
        jumps=(3.0,) * 40,
        resets=2.0,
        restarts=(4.0, 9.0),
        limit=2000.0,
        patience=600.0,
        stuck=20.0,
    )

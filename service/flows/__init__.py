"""flows.toml: which topics, which prompt and model, where the reply goes.

`load` reads it, `parse` also tells warnings; the values are frozen and nothing here does I/O
but `load`.
"""

from service.flows.catalogue import Catalogue, Edition
from service.flows.flow import Flow, Flows, McpServer, Provider
from service.flows.load import load, parse, read, sound
from service.flows.models import DEFAULT_MODEL, DEFAULT_PROVIDER, ModelRef
from service.flows.tables import History, Price, Recent, Tool
from service.units import Limit, duration

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_PROVIDER",
    "Catalogue",
    "Edition",
    "Flow",
    "Flows",
    "History",
    "Limit",
    "McpServer",
    "ModelRef",
    "Price",
    "Provider",
    "Recent",
    "Tool",
    "duration",
    "load",
    "parse",
    "read",
    "sound",
]

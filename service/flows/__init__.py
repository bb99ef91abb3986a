"""flows.toml: which topics, which prompt and model, where the reply goes.

`load` reads it, `parse` also tells warnings; the values are frozen and nothing here does I/O
but `load`.
"""

from service.flows.catalogue import Catalogue, Edition
from service.flows.flow import Commands, Flow, Flows, McpServer, Provider
from service.flows.load import load, parse, read, sound
from service.flows.model_names import DEFAULT_MODEL, DEFAULT_PROVIDER, ModelRef
from service.flows.tables import Collect, History, Price, Recent
from service.flows.tool import Bounds, Confirm, Tool, Verify
from service.units import Limit, duration

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_PROVIDER",
    "Bounds",
    "Catalogue",
    "Collect",
    "Commands",
    "Confirm",
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
    "Verify",
    "duration",
    "load",
    "parse",
    "read",
    "sound",
]

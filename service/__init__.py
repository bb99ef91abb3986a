"""GPT for devices on MQTT, through EMQX's rule engine: a durable webhook."""

__version__ = "0.1.0"

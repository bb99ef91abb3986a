"""MQTT topics, filters and `${name}` templates. Pure."""

"""What operators see: the read-model, metrics, events, logs, the watchdog."""

"""HTTP: the webhook, the inbox to look up, questions over HTTP, health."""

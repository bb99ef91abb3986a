"""Topics inside the broker that no flow may use."""

# The internal topic on which binary Correlation-Data reaches the broker's reply rule.
REPLY_TOPIC = "emqx-gpt/reply"

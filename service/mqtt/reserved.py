"""Topics that are the service's own: no flow may use them."""

# Under it each installation has the topic of its reply rule (`service.emqx.reply_rule`).
INTERNAL_TOPIC = "emqx-gpt/reply"
INTERNAL_FILTER = f"{INTERNAL_TOPIC}/#"

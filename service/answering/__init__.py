"""One request from its claim to its stored reply: ask, retry, call tools, say what happened."""

"""The two remote ends: the model (openai) and the broker (httpx). Thin; policy is elsewhere."""

"""Models behind OpenAI's API: asking, retries, circuit breakers."""

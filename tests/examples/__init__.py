"""The examples, run as their readers run them: at a demo, with real clients."""

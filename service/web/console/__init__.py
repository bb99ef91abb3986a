"""The operator's console: pages for people, made on the server."""

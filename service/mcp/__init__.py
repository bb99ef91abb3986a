"""MCP, both ways: servers whose tools flows offer to their models, and flows as tools.

Only `connection` and `serving` import the package `mcp`, which is an extra and slow to load.
"""

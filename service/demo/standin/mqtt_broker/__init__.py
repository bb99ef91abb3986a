"""An MQTT broker in memory: 3.1.1 and 5, over TCP and WebSocket, on asyncio."""

"""A small HTTP/1.1 server on asyncio and h11, made for the agent's two ports."""

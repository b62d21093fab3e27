"""The loopback proxy: HTTP, event streams and WebSockets to ports of this workspace (spec 12)."""

"""The agent that runs inside every workspace."""

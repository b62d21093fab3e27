"""The control-plane REST API (spec control-plane)."""

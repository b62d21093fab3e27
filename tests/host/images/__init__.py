"""Images from registries and archives."""

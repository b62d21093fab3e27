"""What faces the network: HAProxy's configuration and its maps."""

"""`/ws`: the one connection that carries terminals and watchers."""

"""What happens without a request: long operations, observation, sweeps."""

"""Pure rules: states, policies, durations, names. Imports nothing of ours."""

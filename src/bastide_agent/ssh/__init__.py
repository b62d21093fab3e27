"""SSH into the workspace: OpenSSH's server from the bundle, run by the agent while wanted."""

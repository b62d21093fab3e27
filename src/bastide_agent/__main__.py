"""Start the agent: `python -m bastide_agent`, the boot document on standard input."""

from bastide_agent.main import main

main()

"""Double entry in integer nano-dollars: what every GPU-second cost, and why."""

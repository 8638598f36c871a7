"""Where nodes come from: this machine, somebody else's cluster, or memory."""

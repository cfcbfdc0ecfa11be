"""What crosses the network: signed HTTP, the remote participants' protocol, the gateway, tokens, bodies, problems."""

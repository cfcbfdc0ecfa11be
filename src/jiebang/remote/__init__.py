"""What the platform calls across the network: signed HTTP, the remote participants' protocol, the issuer's keys."""

"""Named fakes: small parts of a network that do as they are told."""

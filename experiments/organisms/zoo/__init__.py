"""The zoo: small organisms of twelve kinds with one hidden habit each, and benign ones."""

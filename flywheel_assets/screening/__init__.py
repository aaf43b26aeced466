"""Policy checks that ask a model: a local classifier in its own process, a judge behind an HTTP endpoint."""

"""Compare methods with one backbone, one set of stored features, equal budgets and several seeds."""

"""Methods side by side: one backbone, one set of stored features, equal budgets, several seeds."""

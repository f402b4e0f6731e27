"""Published results on the published data: check, train, measure, compare, report."""

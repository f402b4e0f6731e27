"""Read modification texts: requested values, numeric constraints and unread words."""

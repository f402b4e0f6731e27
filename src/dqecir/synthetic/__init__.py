"""Draw garments and scenes whose attributes are known."""

"""Draw pictures of garments and scenes whose attributes are known exactly."""

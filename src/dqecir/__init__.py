"""dqecir: composed image retrieval."""

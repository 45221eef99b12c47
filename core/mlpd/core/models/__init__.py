"""A trained model: its file, its predictions, its scores."""

"""Scores and predictions of published models."""

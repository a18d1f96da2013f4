"""Losses, as functions that return a named breakdown."""

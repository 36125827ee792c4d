"""Worlds: what makes data or answers actions, with every factor known."""

"""Strategies compared: complete tables, replays, and what is measured on them."""

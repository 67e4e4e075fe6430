"""Where everything is assembled."""

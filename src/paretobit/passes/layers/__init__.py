"""What a choice of layers and formats means, for the passes and for the spaces alike."""

"""The study: its file, how trials are packed in it, and the answers it gives."""

"""One search from beginning to end: assembled parts that run, are judged, and say what they were."""

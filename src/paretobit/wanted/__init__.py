"""What a search is asked for: metrics, objectives, constraints, and the fronts and questions they make."""

"""What is known about a model before anything is proposed: which option costs and harms how much."""

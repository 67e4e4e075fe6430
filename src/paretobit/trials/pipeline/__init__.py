"""Training inside a trial: the steps from a configuration to a trained model."""

"""How the model of a configuration is run: what stayed the same is taken from earlier runs, exactly."""

"""Models and configurations in other tools' formats."""

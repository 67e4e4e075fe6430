"""What happens to one configuration: it is applied, trained where trials train, and measured."""

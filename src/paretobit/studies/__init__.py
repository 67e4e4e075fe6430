"""The record of every trial, and the answers it gives."""

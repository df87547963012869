"""Repositories: written once, over any store; one module each."""

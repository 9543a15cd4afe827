"""Storybook, the embedded model: its world, its nets, their training, its judge."""

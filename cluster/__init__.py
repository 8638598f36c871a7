"""Capacity: flavors and offers, drivers and providers, the agent beside a Ray cluster."""

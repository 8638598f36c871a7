"""The tests, by tier: unit, contract, simulation, integration."""

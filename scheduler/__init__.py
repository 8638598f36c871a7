"""The loop: it observes, decides purely, and acts in one transaction per tick."""

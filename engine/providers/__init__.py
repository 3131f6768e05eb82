"""Third-party APIs as data: one YAML file each, and the few pure functions that read by it."""

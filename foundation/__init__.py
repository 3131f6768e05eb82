"""What both services stand on: databases, sealed secrets, logs, the queue's settings. No domain in here."""
